#!/bin/sh
# The event comes back, with the pid of the process that had it.
printf '{"pid": %s, "event": %s}\n' $$ "$(cat)"
