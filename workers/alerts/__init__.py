"""The role `alerts`: notices what somebody should look at, and tells each thing once."""
