"""KV pages and the file system over them: the page pool, page tables, files, directories. Imports nothing of ours."""
