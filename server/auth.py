"""Who calls: bearer keys, one user each, kept as hashes in a file of `user:sha256-hex` lines.

A key is 256 random bits, so its plain hash can be neither guessed nor looked up; salt and stretching are for
passwords. Without a file everyone who reaches the loopback address is the user "local".
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
from pathlib import Path

from cadenza.kvfs.errors import CadenzaError, Exists, Invalid, NotFound, Unauthenticated

log = logging.getLogger(__name__)

LOCAL_USER = "local"
KEY_PREFIX = "cadenza-"                     # so that a leaked key is recognised for what it is
USER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
FORBIDDEN_MODE = 0o027                      # nobody else may read it, the group may not write it


class Keys:
    """Answers whose a key is. The file is read anew when it has changed, so a daemon need not be restarted."""

    def __init__(self, path: Path | None) -> None:
        """Raises Invalid if the file is malformed or too open, NotFound if there is none."""
        self._path = path
        self._version: tuple[int, ...] = ()
        self._users: list[tuple[bytes, str]] = []
        self._refresh()

    @property
    def required(self) -> bool:
        return self._path is not None

    def user(self, authorization: str | None) -> str:
        """The user of an `authorization` header. Raises Unauthenticated if the key is missing or unknown."""
        if self._path is None:
            return LOCAL_USER
        self._refresh_or_refuse()
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Unauthenticated("a key is needed: 'authorization: Bearer KEY' (for the command line CADENZA_KEY)")
        digest = hash_of(key.strip()).encode()
        found = ""
        for known, user in self._users:  # all of them, so that the time tells nothing
            if hmac.compare_digest(known, digest):
                found = user
        if not found:
            raise Unauthenticated("the key is unknown; ask the operator for one ('cadenza keys add USER')")
        return found

    def _refresh(self) -> None:
        if self._path is None:
            return
        version = _version(self._path)
        if version != self._version:
            self._users = [(digest.encode(), user) for user, digest in read_keys(self._path)]
            self._version = version

    def _refresh_or_refuse(self) -> None:
        try:
            self._refresh()
        except CadenzaError as error:  # for the operator's eyes: it names a path
            log.error("nobody is let in: %s", error.message)
            raise Unauthenticated("the daemon cannot read its keys; its log says why") from error


def read_keys(path: Path) -> list[tuple[str, str]]:
    """(user, digest) of each line. Raises NotFound, and Invalid for a malformed or too open file."""
    try:
        mode = path.stat().st_mode
        lines = path.read_text().splitlines()
    except OSError as error:
        raise NotFound(f"cannot read keys file {path}: {error.strerror}; make one with 'cadenza keys add'") from error
    if mode & FORBIDDEN_MODE:
        raise Invalid(f"keys file {path} has mode {mode & 0o777:03o}, open to others; run 'chmod 600' on it")
    return [_entry(path, number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]


def add_key(path: Path, user: str) -> str:
    """Makes a key for `user` and appends its hash to the file, made if need be. Answers the key, kept nowhere."""
    check_user(user)
    if path.exists():
        read_keys(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "a+") as file:
        file.seek(0)
        before = file.read()
        separator = "\n" if before and not before.endswith("\n") else ""
        file.write(f"{separator}{user}:{hash_of(key)}\n")
    return key


def remove_keys(path: Path, user: str) -> int:
    """Takes every key of `user` out of the file; answers how many. Raises NotFound if there is none."""
    entries = read_keys(path)
    kept = [entry for entry in entries if entry[0] != user]
    if len(kept) == len(entries):
        raise NotFound(f"user {user!r} has no key in {path}; 'cadenza keys list' shows who has")
    replacement = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.writelines(f"{name}:{digest}\n" for name, digest in kept)
    replacement.replace(path)
    return len(entries) - len(kept)


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def check_user(user: str) -> None:
    if not USER_NAME.fullmatch(user):
        raise Invalid(f"user name {user!r} must be 1 to 64 of a-z 0-9 . _ -, and begin with a letter or digit", "user")
    if user == LOCAL_USER:
        raise Exists(f"{LOCAL_USER!r} is the user of a daemon without keys; choose another name")


def _entry(path: Path, number: int, line: str) -> tuple[str, str]:
    user, _, digest = line.strip().partition(":")
    if not USER_NAME.fullmatch(user) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise Invalid(f"line {number} of keys file {path} must be 'user:sha256-hex', 64 hexadecimal digits")
    return user, digest


def _version(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        raise NotFound(f"keys file {path} is gone: {error.strerror}; the daemon lets nobody in without it") from error
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
