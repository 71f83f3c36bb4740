"""The commands, one file a group: parse, call, show. Heavy libraries are imported where they are used."""
