"""Registers the strategies of this package, as any third party's plugin would."""

from decodekit import hookimpl
