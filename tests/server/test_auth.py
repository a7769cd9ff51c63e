"""Keys, users, and what a daemon refuses to be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from cadenza.kvfs.errors import Exists, Invalid, NotFound, Unauthenticated
from cadenza.sdk.client import Client, ClientError
from cadenza.sdk.client import Invalid as ClientInvalid
from cadenza.sdk.client import NotFound as ClientNotFound
from cadenza.sdk.client import Unauthenticated as ClientUnauthenticated
from cadenza.server.auth import Keys, add_key, hash_of, read_keys, remove_keys
from cadenza.server.options import ListenOptions

from .serving import PROGRAM, run, served


def with_keys(path: Path) -> ListenOptions:
    return ListenOptions("127.0.0.1:0", keys=path)


def test_a_key_names_its_user(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    ann, bob = add_key(path, "ann"), add_key(path, "bob")
    keys = Keys(path)
    assert keys.user(f"Bearer {ann}") == "ann"
    assert keys.user(f"bearer {bob}") == "bob"
    for wrong in (None, "", ann, f"Basic {ann}", "Bearer ", f"Bearer {ann}x", f"Bearer {hash_of(ann)}"):
        with pytest.raises(Unauthenticated):
            keys.user(wrong)
    assert ann not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_running_daemon_sees_keys_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    add_key(path, "ann")
    keys = Keys(path)
    bob = add_key(path, "bob")
    assert keys.user(f"Bearer {bob}") == "bob"
    assert remove_keys(path, "bob") == 1
    with pytest.raises(Unauthenticated):
        keys.user(f"Bearer {bob}")
    with pytest.raises(NotFound):
        remove_keys(path, "bob")
    path.unlink()
    with pytest.raises(Unauthenticated, match="its log"):
        keys.user(f"Bearer {bob}")


def test_a_keys_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "ann")
    keys = Keys(path)
    path.chmod(0o644)
    with pytest.raises(Invalid, match="644"):
        read_keys(path)
    with pytest.raises(Unauthenticated):
        keys.user(f"Bearer {key}")


def test_malformed_keys_files(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(NotFound):
        Keys(path)
    path.touch(0o600)
    path.write_text(f"# who\n\nann:{'a' * 64}")
    assert read_keys(path) == [("ann", "a" * 64)]
    add_key(path, "bob")  # the last line had no end
    assert [user for user, _ in read_keys(path)] == ["ann", "bob"]
    path.write_text("ann:key\n")
    with pytest.raises(Invalid, match="line 1"):
        Keys(path)


@pytest.mark.parametrize("user", ["", "Ann", "a:b", "-a", "a" * 65, "a b"])
def test_names_of_users(tmp_path: Path, user: str) -> None:
    with pytest.raises(Invalid):
        add_key(tmp_path / "keys", user)
    with pytest.raises(Exists):
        add_key(tmp_path / "keys", "local")
    assert not (tmp_path / "keys").exists()


def test_no_call_without_a_key(tmp_path: Path) -> None:
    add_key(tmp_path / "keys", "ann")

    async def test() -> None:
        async with served(with_keys(tmp_path / "keys")) as server:
            calls = (server.client.facts, server.client.images, server.client.processes, server.client.statistics)
            for call in calls:
                with pytest.raises(ClientUnauthenticated) as caught:
                    await call()
                assert caught.value.errno == "denied"
            with pytest.raises(ClientUnauthenticated):
                await server.client.upload(PROGRAM)
            with pytest.raises(ClientUnauthenticated):
                await server.client.spawn("agent")

    run(test())


def test_another_users_objects_are_like_absent_ones(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    keys = add_key(path, "ann"), add_key(path, "bob")

    async def refusal(client: Client, pid: int, image: str) -> list[tuple[str, str]]:
        told = []
        attempts = (client.process(pid), client.image(image), client.delete_image(image), client.spawn(image))
        for attempt in attempts:
            with pytest.raises(ClientError) as caught:
                await attempt
            told.append((caught.value.errno, caught.value.message))
        return told

    async def test() -> None:
        async with served(with_keys(path), key=keys[0]) as server, Client(server.daemon.address, key=keys[1]) as bob:
            image = await server.client.upload(PROGRAM, name="agent")
            process = await server.client.spawn(image, {"hang": True})
            foreign = await refusal(bob, process.pid, image.digest)
            assert (await bob.facts()).user == "bob"
            assert await bob.images() == []
            assert await bob.processes() == []
            await bob_tries_to_reach(bob, process.pid)
            assert (await process.refresh()).state == "running"
            server.kernel.table.clear()
            server.kernel.images.kept.clear()
            assert await refusal(bob, process.pid, image.digest) == foreign
            assert {errno for errno, _ in foreign} == {"not-found"}

    async def bob_tries_to_reach(bob: Client, pid: int) -> None:
        own = await bob.spawn(await bob.upload(b"# bob's"), {"hang": True})
        own.snapshot = replace(own.snapshot, pid=pid)
        for attempt in (own.kill(), own.wait(), anext(own.attach()), anext(own.logs()), own.refresh()):
            with pytest.raises(ClientNotFound, match=f"no process {pid}"):
                await attempt

    run(test())


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "127.0.0.1.example.org:0"])
def test_off_loopback_needs_keys_and_tls(tmp_path: Path, address: str) -> None:
    async def refused(options: ListenOptions) -> str:
        with pytest.raises(Invalid) as caught:
            async with served(options):
                pass
        return caught.value.message

    key_file = tmp_path / "keys"
    add_key(key_file, "ann")
    pem = tmp_path / "pem"
    both = run(refused(ListenOptions(address)))
    assert "keys (--keys) and TLS (--tls-cert, --tls-key)" in both
    assert "needs TLS" in run(refused(ListenOptions(address, keys=key_file)))
    assert "needs keys" in run(refused(ListenOptions(address, tls_cert=pem, tls_key=pem)))
    assert "both" in run(refused(ListenOptions(address, keys=key_file, tls_cert=pem)))
    assert "cannot read" in run(refused(ListenOptions(address, keys=key_file, tls_cert=pem, tls_key=pem)))


@pytest.mark.parametrize("address", ["", "127.0.0.1", "::1", "127.0.0.1:http", "127.0.0.1:65536", ":50761"])
def test_malformed_addresses(address: str) -> None:
    async def test() -> None:
        with pytest.raises(Invalid) as caught:
            async with served(ListenOptions(address)):
                pass
        assert caught.value.field == "address"

    run(test())


def test_a_key_never_travels_in_the_clear() -> None:
    async def test() -> None:
        with pytest.raises(ClientInvalid, match="in the clear"):
            Client("192.0.2.1:50761", key="secret")

    run(test())


def test_tls_and_key_off_loopback(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    key = add_key(tmp_path / "keys", "ann")
    cert, secret = certificate
    options = ListenOptions("0.0.0.0:0", keys=tmp_path / "keys", tls_cert=cert, tls_key=secret)

    async def test() -> None:
        async with served(options) as server:
            target = "127.0.0.1:" + server.daemon.address.rpartition(":")[2]
            async with Client(target, key=key, tls=cert) as client:
                assert (await client.facts()).user == "ann"
            async with Client(target, tls=cert) as client:
                with pytest.raises(ClientUnauthenticated):
                    await client.facts()
            async with grpc.aio.insecure_channel(target) as channel:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(channel.channel_ready(), 0.5)

    run(test())
