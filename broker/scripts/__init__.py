"""The Lua scripts, one file each; `prelude.lua` is put before every one of them."""
