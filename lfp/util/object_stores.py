"""Object stores by address (s3://, gs://, az://, hf://), through fsspec, and what failed there in one sentence."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lfp.errors import BundleError, ConfigError, DependencyError, LfpError, first_line

TIMEOUT = "LFP_STORE_TIMEOUT"
"""Environment variable: seconds that a store may be silent."""
CACHE = "LFP_CACHE"
"""Environment variable: the folder of copies of what is in object stores."""
_TIMEOUT_S = 20.0
AT_ONCE = 8
"""Files that are on their way at the same time."""
_STATE = ("size", "ETag", "etag", "md5Hash", "generation", "blob_id", "LastModified", "created", "mtime")
"""What filesystems say of a file, some of it each, that changes with its content."""
_RETRIES = 3
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_DRIVERS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "az": "adlfs",
}  # fmt: skip
_PINNED_TO_FSSPEC = {"s3fs"}
"""Drivers that are released with fsspec, under its version."""
_SECRET = re.compile(
    r"(?<=://)[^/\s@]+@|\?\S*|\b(?:AKIA|ASIA)\w+"
    r"|(?i:[\w-]*(?:signature|credential|token|secret|password|access_?key)[\w-]*\s*[=:]\s*\S+)"
)
"""User and query of an address, and named credentials, as clients quote them."""
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError",
    "ClientAuthenticationError", "LocalTokenNotFoundError",
}  # fmt: skip
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNREACHABLE = {"EndpointConnectionError", "ClientConnectorError", "ConnectError", "ConnectionClosedError"}
_REFUSED = {"GatedRepoError", "Forbidden", "InvalidAccessKeyId", "HttpAuthError"}
_MISSING = {"RepositoryNotFoundError", "EntryNotFoundError", "ResourceNotFoundError", "NoSuchBucket", "NotFound"}


@dataclass(frozen=True)
class StoredFolder:
    """A folder in an object store."""

    address: str
    """As it may be shown and kept: without user, query and fragment."""
    filesystem: Any
    """Of fsspec."""
    root: str
    """The folder's path in that filesystem."""
    kind: type[LfpError] = BundleError
    """Error that is raised where the store fails."""

    def path(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return f"{self.root}/{name}"

    def explaining(self, doing: str) -> Any:
        """Turn whatever the store's client raises in the block into one sentence; see `explaining`."""
        return explaining(self.address, doing, kind=self.kind)


def is_address(name: object) -> bool:
    """Return whether a name is an address of the form scheme://..."""
    return isinstance(name, str) and _ADDRESS.match(name) is not None


def scheme_of(address: str) -> str:
    """Return an address's scheme in small letters."""
    return address.partition("://")[0].lower()


def without_secrets(text: str) -> str:
    """Return an address, or what a client says, without user, password and signed query."""
    if is_address(text) and not re.search(r"\s", text):
        is_web = scheme_of(text) in ("http", "https")  # elsewhere a name may hold a question mark, and @ a container
        text = re.sub(r"[?#].*" if is_web else r"\?[^?]*=.*", "", text)
        return re.sub(r"(?<=://)[^/@]*@" if is_web else r"(?<=://)[^/@]*:[^/@]*@", "", text)
    return _SECRET.sub("…", text)


def values_without_secrets(values: Any) -> Any:
    """Return a config's values, however nested, with every address as `without_secrets` gives it."""
    if isinstance(values, dict):
        return {name: values_without_secrets(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [values_without_secrets(value) for value in values]
    return without_secrets(values) if is_address(values) else values


def open_folder(address: str, *, kind: type[LfpError] = BundleError, what: str = "") -> StoredFolder:
    """Open the folder at an address; nothing is read yet.

    `what` precedes the address in messages, such as the config key that holds it. Raises DependencyError, which says
    what to install, where a package is missing, and `kind` for a scheme that nobody knows.
    """
    shown = f"{what} {without_secrets(address)}".strip()
    try:
        import fsspec

        filesystem, root = fsspec.core.url_to_fs(address, **_options(scheme_of(address)))
    except (ImportError, ValueError) as error:
        driver = _DRIVERS.get(scheme_of(address))
        if isinstance(error, ModuleNotFoundError) and error.name == "fsspec":
            raise DependencyError(f"{shown}: needs the package fsspec; run pip install fsspec") from None
        if driver is None or isinstance(error, ValueError):
            reason = without_secrets(first_line(error))
            raise kind(f"{shown}: {reason}; use s3://, gs://, az://, hf:// or https://") from None
        pin = f"=={fsspec.__version__}" if driver in _PINNED_TO_FSSPEC else ""
        raise DependencyError(f"{shown}: needs the package {driver}; run pip install '{driver}{pin}'") from None
    if "s3" in filesystem.protocol:
        filesystem.retries = _RETRIES
    return StoredFolder(shown, filesystem, str(root).rstrip("/"), kind)


def fetch_copy(address: str, *, kind: type[LfpError], what: str = "") -> Path:
    """Return a copy on this machine of the folder or file at an address, in the state that it has now.

    It is made once for each state, and kept. Raises DependencyError where a package is missing, else `kind`.
    """
    folder = open_folder(address, kind=kind, what=what)
    with folder.explaining("cannot be read"):
        found = folder.filesystem.find(folder.root, detail=True)
    inside = {path: PurePosixPath(path[len(folder.root) :].lstrip("/") or PurePosixPath(path).name) for path in found}
    if not found or any(name.is_absolute() or ".." in name.parts for name in inside.values()):
        raise kind(f"{folder.address}: no such file or folder; check the address")
    states = [(path, *(str(info.get(key)) for key in _STATE)) for path, info in sorted(found.items())]
    state = hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    target = cache_folder() / "copies" / f"{PurePosixPath(folder.root).name}-{state}"
    if not target.is_dir():
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            for name in inside.values():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
            with folder.explaining("cannot be read"), ThreadPoolExecutor(AT_ONCE) as pool:
                for _ in pool.map(folder.filesystem.get_file, inside, (str(draft / name) for name in inside.values())):
                    pass
            with suppress(OSError):  # another process was faster
                draft.rename(target)
        except OSError as error:
            raise kind(f"{target}: cannot be written ({error.strerror}); make room, or set {CACHE}") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target / inside[folder.root] if folder.root in inside else target


def cache_folder() -> Path:
    """Return where copies of what is in object stores are kept: $LFP_CACHE, or a folder of the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(CACHE) or home / "lfp-explorer" / "remote").expanduser().absolute()


@contextmanager
def explaining(
    shown: str, doing: str, *, kind: type[LfpError], unless: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Raise `kind`, one sentence such as "s3://b/x: cannot be read (no answer ...); try again", for any client's error.

    Errors of the kinds `unless` are not the store's and pass. The client's own error is left out of the traceback: it
    may quote a signed request.
    """
    try:
        yield
    except LfpError:
        raise
    except Exception as error:
        if isinstance(error, unless):
            raise
        reason, fix = _explain(error)
        raise kind(f"{shown}: {doing} ({reason}); {fix}") from None


def timeout_s() -> float:
    """Return how many seconds a store may be silent. Raises ConfigError where the environment does not say a number."""
    return read_setting(TIMEOUT, _TIMEOUT_S, unit="seconds")


def read_setting(name: str, default: float, *, unit: str) -> float:
    """Return the number above 0 that an environment variable holds. Raises ConfigError where it holds none."""
    value = os.environ.get(name) or str(default)
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConfigError(f"{name}: {value} is no number of {unit} above 0; set it to {default:g}, for example")
    return number


def _options(scheme: str) -> dict[str, Any]:
    """Return the options of a scheme's filesystem: listings as they are now, and the time limit."""
    seconds = timeout_s()
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        limits = {"connect_timeout": seconds, "read_timeout": seconds, "retries": {"max_attempts": 0}}
        options["config_kwargs"] = limits
    elif scheme in ("gs", "gcs"):
        options["requests_timeout"] = seconds
    elif scheme in ("az", "abfs"):
        options |= {"connection_timeout": int(seconds) or 1, "read_timeout": int(seconds) or 1}
    return options


def _explain(error: BaseException) -> tuple[str, str]:
    """Return why a store's client failed, without credentials, and what to do about it."""
    names = {kind.__name__ for raised in (error, error.__cause__) for kind in type(raised).__mro__}
    if names & _NO_CREDENTIALS:
        fix = "set them as its driver reads them, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return "there are no credentials for the store", fix
    if isinstance(error, PermissionError) or names & _REFUSED:
        return "the store refuses the credentials", "check that they are valid and may do this"
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names):
        return f"no answer within {timeout_s():g} s", f"try again, or set {TIMEOUT} to more seconds"
    if isinstance(error, ConnectionError) or names & _UNREACHABLE:
        return "the server cannot be reached", "check the network and the store's endpoint"
    if isinstance(error, FileNotFoundError) or names & _MISSING:
        return "no such bucket or file", "check the address"
    if isinstance(error, OSError) and error.errno in _FULL:
        return "there is no room on this machine's disk", "make room"
    return without_secrets(first_line(error)), "try again, or look at the store's status"
