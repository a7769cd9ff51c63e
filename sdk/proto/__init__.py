"""The wire: .proto files and the code generated from them, so that nobody needs protoc."""
