"""Configurations of runs as TOML: the user's, the recipes of this package, a run's own."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomlkit

from ..data.alphabet import ESM1_ALPHABET, ESM1B, Alphabet
from ..models.config import ESM1Config
from ..system.errors import UserError
from ..system.whole_file import whole_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Tables = Mapping[str, Mapping[str, Any]]

CONFIG = "config.toml"  # in the folder of a run
DEFAULTS = "first-minute"  # the recipe that says what others leave unsaid
ALPHABETS = {"esm1b": ESM1B, "esm1": ESM1_ALPHABET}
# Fields of ESM1Config that an alphabet or the training itself decides.
_DECIDED = {"vocab_size", "padding_idx", "mask_idx", "cls_idx", "eos_idx", "prepend_cls"}
_DECIDED |= {"append_eos", "language_head", "contact_head", "objective"}
MODEL_KEYS = (
    *(field.name for field in dataclasses.fields(ESM1Config) if field.name not in _DECIDED),
    "alphabet",
)


class ConfigError(UserError):
    """A configuration that cannot be meant; the message names file, table and key."""


class ConfigWarning(UserWarning):
    """A configuration that does not do what one may think."""


@dataclass(frozen=True)
class ConfigFile:
    """A configuration as it was written.

    Attributes:
        name: what messages call it.
        tables: of each table the values by key, as TOML gives them.
        path: the file; None: a recipe of this package.
    """

    name: str
    tables: Tables
    path: Path | None = None

    @property
    def sizes(self) -> dict[str, Any]:
        """What [model] says of a model's sizes and switches; empty where it says nothing."""
        model = self.tables.get("model", {})
        return {key: value for key, value in model.items() if key in MODEL_KEYS}

    def model_config(self) -> ESM1Config:
        """The model of `sizes`.

        Raises:
            ConfigError: a size is missing, or they do not fit together.
        """
        sizes = self.sizes
        name = sizes.pop("alphabet", "esm1b")
        if not isinstance(name, str) or name not in ALPHABETS:
            known = " or ".join(json.dumps(known) for known in ALPHABETS)
            raise self.error("model", "alphabet", f"expected {known}", name)
        for field in dataclasses.fields(ESM1Config):
            if field.default is dataclasses.MISSING and field.name not in sizes:
                raise ConfigError(
                    f"{self.name}, [model] {field.name}: expected a whole number beside "
                    f"{', '.join(sizes) or 'alphabet'}; it is missing."
                )
        try:
            return ESM1Config.of(ALPHABETS[name], **sizes)
        except ValueError as error:
            said = str(error).removeprefix("[ESM1Config] ")
            raise ConfigError(f"{self.name}, [model] {said}") from None

    def require_keys(
        self, known: Mapping[str, Collection[str]], elsewhere: Mapping[str, str]
    ) -> None:
        """Refuse tables and keys that are none.

        Args:
            known: of each table the keys.
            elsewhere: of keys that look as if they belonged here, why they do not.

        Raises:
            ConfigError: there is one; the message says what may have been meant.
        """
        listed = ", ".join(f"[{name}]" for name in known)
        for table, values in self.tables.items():
            if not isinstance(values, Mapping):
                home = _table_of(table, known)
                where = f"it in the table [{home}]" if home else f"keys in the tables {listed}"
                raise ConfigError(f"{self.name}, {table}: expected {where}; it stands in none.")
            if table not in known:
                raise ConfigError(
                    f"{self.name}, [{table}]: expected the tables {listed}; there is no such "
                    f"table{_end(table, known)}"
                )
            for key in (key for key in values if key not in known[table]):
                where, home = f"{self.name}, [{table}] {key}", _table_of(key, known)
                if home is not None:
                    raise ConfigError(f"{where}: expected it in the table [{home}].")
                if key in elsewhere:
                    raise ConfigError(f"{where}: {elsewhere[key]}")
                raise ConfigError(f"{where}: there is no such key{_end(key, known[table])}")

    def error(self, table: str, key: str, expected: str, got: Any) -> ConfigError:
        """The sentence about a value: where, what was expected, and what came."""
        value = json.dumps(got, ensure_ascii=False, default=str)
        return ConfigError(f"{self.name}, [{table}] {key}: {expected}; got {value}.")


def recipe_names() -> list[str]:
    """Those that come with this package; another .toml in its folder is another one."""
    names = sorted(path.stem for path in _folder().glob("*.toml"))
    return [DEFAULTS, *(name for name in names if name != DEFAULTS)]


def read_config(name: str) -> ConfigFile:
    """A recipe of this package by its name, or a file. (A file of such a name: ./NAME.)

    Raises:
        ConfigError: there is neither, it cannot be read, or it is no TOML.
    """
    if name in recipe_names():
        return ConfigFile(name, tomllib.loads((_folder() / f"{name}.toml").read_text("utf-8")))
    path = Path(name)
    if path.is_dir():
        inside = f": did you mean {path / CONFIG}?" if (path / CONFIG).is_file() else "."
        raise ConfigError(f"{name} is a folder, not a TOML file{inside}")
    try:
        return ConfigFile(name, tomllib.loads(path.read_text("utf-8-sig")), path)
    except FileNotFoundError:
        listed = ", ".join(recipe_names())
        raise ConfigError(
            f"{name}: there is no such file (looked for in {Path.cwd()}), and the recipes of this "
            f"package are {listed}{_end(name, recipe_names())}"
        ) from None
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{name}: expected text in UTF-8; byte {error.start} is none.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: expected TOML; {_lower(str(error))}.") from None


def write_config(path: Path, tables: Tables, remarks: Mapping[str, str], head: str) -> None:
    """Write a configuration, such that `read_config` gives the same values.

    Args:
        path: the file; it appears whole or not at all.
        tables: of each table the values by key.
        remarks: comments beside the keys of these names.
        head: comment at the top, of any number of lines.

    Raises:
        OutputError: it cannot be written.
    """
    with whole_file(path) as half_done:
        half_done.write_text(config_text(tables, remarks, head), "utf-8")


def config_text(
    tables: Tables, remarks: Mapping[str, str] = MappingProxyType({}), head: str = ""
) -> str:
    """The TOML of `write_config`."""
    document = tomlkit.document()
    for line in head.splitlines():
        document.add(tomlkit.comment(line))
    for name, values in tables.items():
        table = tomlkit.table()
        for key, value in values.items():
            table.add(key, value)
            if key in remarks:
                table[key].comment(remarks[key])
        document.add(tomlkit.nl())
        document.add(name, table)
    return tomlkit.dumps(document)


def model_table(config: ESM1Config, alphabet: Alphabet) -> dict[str, Any]:
    """What [model] says of a model; the alphabet only where it has a name."""
    sizes = {key: getattr(config, key) for key in MODEL_KEYS if key != "alphabet"}
    named = [name for name, known in ALPHABETS.items() if known.to_dict() == alphabet.to_dict()]
    return {**sizes, **({"alphabet": named[0]} if named else {})}


def _folder() -> Path:
    return Path(__file__).parents[1] / "recipes"


def _table_of(key: str, known: Mapping[str, Collection[str]]) -> str | None:
    return next((table for table, keys in known.items() if key in keys), None)


def _end(word: str, known: Collection[str]) -> str:
    """The end of a sentence about a word that is not known."""
    close = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1)
    return f"; did you mean {close[0]}?" if close else "."


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
