"""What the agent may be told: a frozen `Config`, put together from all sources.

`settings` the values and their defaults · `checking` what may stand in a source · `loading` which sources there are,
and their order · `positions` in which line a key stands · `places` directories · `faults` · `showing` a configuration
as TOML, and where each key is from · `words` what each key means.  The last two and `positions` are loaded when they
are needed.
"""

from .faults import ConfigError, Fault
from .loading import load_config
from .places import course_key, course_state_dir
from .settings import (
    LOG_LEVELS,
    PROCESS_SENSORS,
    SCHEMES,
    SINK_KINDS,
    XAPI_VERSIONS,
    Config,
    Credential,
    Send,
    SinkConfig,
)

__all__ = [
    "LOG_LEVELS",
    "PROCESS_SENSORS",
    "SCHEMES",
    "SINK_KINDS",
    "XAPI_VERSIONS",
    "Config",
    "ConfigError",
    "Credential",
    "Fault",
    "Send",
    "SinkConfig",
    "course_key",
    "course_state_dir",
    "load_config",
]
