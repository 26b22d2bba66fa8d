"""The forms of what a flag says of a pod: names, variables, labels, taints. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from launcher.job.labels import APPLICATION, COMPONENT_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL, NAME_LABEL
from maskfleet.errors import BadSettings

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")

# What ends in _FILE names a file, and TOKENIZERS_PARALLELISM has nothing to do with tokens.
_SECRET_NAMES = re.compile(r"SECRET|TOKEN(?!IZ)|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|ACCESS_KEY|API_?KEY", re.I)
_ACCESS_KEY = re.compile(r"ACCESS_KEY", re.I)
_FILE_PATH = re.compile(r"(/[\w.-]+)+")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
# https://github.com/distribution/reference: HOST[:PORT]/PATH[:TAG][@DIGEST]
_PATH = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?{_PATH}(?:/{_PATH})*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z][\w.+-]*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY = re.compile(r"([a-z0-9.-]+/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_OWN_KEYS = (NAME_LABEL, INSTANCE_LABEL, COMPONENT_LABEL, MANAGED_BY_LABEL, "job-name", "controller-uid")
_OWN_PREFIXES = ("batch.kubernetes.io", APPLICATION)


class SecretInTheOpen(BadSettings):
    """A variable that looks like a secret. Its value must not show up in a terminal or a CI log."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"--env {name}: looks like a secret, which anyone who may read the Job would see: put it into a Secret "
            f"and use --env-from-secret {name}=SECRET/KEY, or --mount secret:SECRET=/PATH and the file's path here"
        )


def image_name(text: str) -> str:
    """The name of a container image, as it is.

    Raises:
        ValueError: no registry could have one of this name.
    """
    if not _IMAGE.fullmatch(text):
        raise ValueError("expected an image as registry.example.com/team/trainer:1.0, its path in lower case")
    return text


def object_name(text: str) -> str:
    """The name of a Kubernetes object, as it is.

    Raises:
        ValueError: it can't be one.
    """
    if not _OBJECT.fullmatch(text):
        raise ValueError("expected an object's name: lower-case letters, digits, '-' and '.'")
    return text


def parse_variable(text: str) -> tuple[str, str]:
    """``VARIABLE=VALUE`` -> (variable, value).

    The path of a file passes under any name but that of an access key, which may look like one.

    Raises:
        ValueError: it has another form.
        SecretInTheOpen: the value looks like a secret by the variable's name.
    """
    name, separator, value = text.partition("=")
    if not separator or not _VARIABLE.fullmatch(name):
        raise ValueError(f"expected VARIABLE=VALUE, not {text!r}")
    names_a_file = name.upper().endswith("_FILE") or (_FILE_PATH.fullmatch(value) and not _ACCESS_KEY.search(name))
    if _SECRET_NAMES.search(name) and not names_a_file:
        raise SecretInTheOpen(name)
    return name, value


def parse_secret_variable(text: str) -> tuple[str | None, str, str | None]:
    """``SECRET`` or ``VARIABLE=SECRET/KEY`` -> (variable, Secret, key).

    Raises:
        ValueError: it has another form.
    """
    variable, separator, rest = text.partition("=")
    if not separator:
        return None, object_name(text), None
    secret, slash, key = rest.partition("/")
    if not _VARIABLE.fullmatch(variable) or not _OBJECT.fullmatch(secret) or not slash or not key:
        raise ValueError(f"expected SECRET or VARIABLE=SECRET/KEY, not {text!r}")
    return variable, secret, key


def parse_label(text: str) -> tuple[str, str]:
    """``LABEL=VALUE`` -> (label, value).

    Raises:
        ValueError: it has another form.
    """
    key, separator, label = text.partition("=")
    if not separator or not _KEY.fullmatch(key) or not _LABEL.fullmatch(label):
        raise ValueError(f"expected LABEL=VALUE, not {text!r}")
    return key, label


def check_free(flag: str, given: Iterable[tuple[str, str]]) -> None:
    """Raises ValueError if a label or annotation is one by which Kubernetes or the launcher finds the pods."""
    for key, _ in given:
        if key in _OWN_KEYS or key.partition("/")[0] in _OWN_PREFIXES:
            raise ValueError(f"{flag} {key}: is set by the job itself: leave it out")


def parse_annotation(text: str) -> tuple[str, str]:
    """``KEY=VALUE`` -> (key, value), the value being any text.

    Raises:
        ValueError: it has another form.
    """
    key, separator, value = text.partition("=")
    if not separator or not _KEY.fullmatch(key):
        raise ValueError(f"expected KEY=VALUE, not {text!r}")
    return key, value


def parse_toleration(text: str) -> dict[str, str]:
    """``KEY[=VALUE][:EFFECT]`` -> a pod's toleration.

    Raises:
        ValueError: it has another form.
    """
    taint, colon, effect = text.partition(":")
    key, separator, value = taint.partition("=")
    if not _KEY.fullmatch(key) or not _LABEL.fullmatch(value) or (colon and effect not in EFFECTS):
        raise ValueError(f"expected KEY, KEY=VALUE or KEY=VALUE:EFFECT with {', '.join(EFFECTS)}, not {text!r}")
    toleration = {"key": key, "operator": "Equal" if separator else "Exists"}
    if separator:
        toleration["value"] = value
    if colon:
        toleration["effect"] = effect
    return toleration
