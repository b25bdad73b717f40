#!/bin/sh
# Whatever comes in goes out again, with a greeting. Lines on standard error go to the log.
event=$(cat)
echo "invocation $HOB_REQUEST_ID" >&2
printf '{"hello":"exec","event":%s}\n' "$event"
