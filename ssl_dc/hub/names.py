"""Names of models on the Hub, and what goes wrong there, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ssl_dc.errors import ConfigError, RunError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def is_hub_name(text: str) -> bool:
    """Whether a text may name a model on the Hub: ``owner/name``."""
    return _NAME.fullmatch(text) is not None


@contextmanager
def hub_errors(name: str, revision: str | None, *, first: str = "") -> Iterator[None]:
    """Turn what the Hub's client raises into one message.

    Args:
        name: The model, ``owner/name``.
        revision: The branch, tag or commit that was asked for.
        first: What to say before that there is no such model, or that it cannot be reached.

    Raises:
        ConfigError: If there is no such model or revision, the name is not valid, or this user may not do it.
        RunError: If the Hub cannot be reached, or fails.
    """
    from huggingface_hub import errors

    before = f"{first} " if first else ""
    try:
        yield
    except errors.GatedRepoError as error:
        raise ConfigError(
            f"the Hub's {name} is gated: ask for access on its page, then log in with: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{before}The Hub shows no model {name} to you; a private one needs a login: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"the Hub's {name} has no revision {revision!r}: name a branch, a tag or a commit") from error
    except errors.HFValidationError as error:
        raise ConfigError(f"{name!r} is no name of a model on the Hub: write owner/name") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise RunError(f"{before}The Hub cannot be reached, and {name} is not in its cache on this machine") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise ConfigError(f"the Hub refuses {name}: log in with hf auth login, as somebody who may do this") from error
        raise RunError(f"the Hub failed on {name}: {_first_line(error)}") from error
    except (ConfigError, RunError):
        raise
    except Exception as error:  # what the client's transport raises depends on its version
        raise RunError(f"the Hub cannot be reached for {name}: {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
