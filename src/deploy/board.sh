# What `hob deploy` runs on the board: sh board.sh VERB ARGUMENT...
# Nothing but a POSIX shell and the usual small tools (BusyBox is enough). It never compares times:
# a board's clock may stand at 1970, and may jump while this runs. What comes from the deployer's
# side are words and digits; secrets are in files, never in arguments.
set -u
export LC_ALL=C PATH="${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
umask 022

uid=$(id -u)
if [ "$uid" = 0 ]; then
  lib=/usr/local/lib/hob bin=/usr/local/bin etc=/etc/hob data=/var/lib/hob run=/run/hob
  units=/etc/systemd/system unit_target=multi-user.target
  systemctl() { command systemctl "$@"; }
else
  lib=$HOME/.local/lib/hob bin=$HOME/.local/bin etc=$HOME/.config/hob data=$HOME/.local/state/hob
  run=$data units=$HOME/.config/systemd/user unit_target=default.target
  if [ -z "${XDG_RUNTIME_DIR:-}" ] && [ -d "/run/user/$uid" ]; then
    export XDG_RUNTIME_DIR="/run/user/$uid"
  fi
  systemctl() { command systemctl --user "$@"; }
fi
current=$lib/current
log=$data/hob.log
pidfile=$run/hob.pid

fail() { echo "$*" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
first_line() { { read -r line <"$1"; } 2>/dev/null && printf '%s\n' "$line"; }
# What starts a command apart from this session.
apart() { if has setsid; then echo setsid; else echo nohup; fi; }
boot_id() { first_line /proc/sys/kernel/random/boot_id || echo none; }

# The digest of the version that `current` leads to; nothing if there is none.
version_now() {
  to=$(readlink "$current" 2>/dev/null) || return 0
  printf '%s\n' "${to##*/}"
}

# How the server is started here.
service() {
  if [ "$uid" = 0 ]; then
    if [ -d /run/systemd/system ]; then echo systemd
    elif has rc-service && has openrc-run; then echo openrc
    else echo init
    fi
  elif has systemctl && systemctl show-environment >/dev/null 2>&1; then echo systemd
  else echo none
  fi
}

# The nearest directory that is there.
nearest() {
  at=$1
  while [ ! -d "$at" ]; do at=${at%/*}; at=${at:-/}; done
  printf '%s\n' "$at"
}

# Only writing tells whether a directory can be written: root may always, but for a read-only disk.
writable() {
  at=$(nearest "$1")
  if (: >"$at/.hob-$$") 2>/dev/null; then rm -f "$at/.hob-$$"; echo yes; else echo no; fi
}

free_kib() {
  # shellcheck disable=SC2046 # words are wanted
  set -- $(df -Pk "$(nearest "$1")" 2>/dev/null | tail -n 1)
  echo "${4:-0}"
}

size_of() { if [ -f "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

# digest FILE [HOB]: its SHA-256; by that hob if the board has no tool of its own.
digest() {
  if has sha256sum; then
    sha256sum <"$1" | cut -c1-64
  else
    "${2:-$current/hob}" helper digest "$1"
  fi
}

# The server's socket, where hob.toml names one.
socket() { sed -n 's/^socket *= *"\([^"]*\)".*/\1/p' "$etc/hob.toml" 2>/dev/null | head -n 1; }

# client SECONDS VERB...: asks the server as the command line does, and gives up after a time.
client() {
  seconds=$1
  shift
  to=$(socket)
  ${to:+env HOB_SOCKET="$to"} "$asker" "$@" >"$lib/answer" 2>"$lib/refusal" </dev/null &
  asked=$!
  # Nothing of the session stays open in it: ssh would wait for that.
  (sleep "$seconds" && kill -9 "$asked") </dev/null >/dev/null 2>&1 &
  bound=$!
  wait "$asked" 2>/dev/null
  answered=$?
  kill "$bound" 2>/dev/null
  return "$answered"
}

# The number behind "KEY": in the server's answer.
number() { sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" "$lib/answer" | head -n 1; }

# True if the server in force answers, and is this version. Sets server_pid.
answers() {
  asker=$lib/versions/$1/hob
  server_pid=
  if client 5 invoke hob-probe; then
    server_pid=$(number server_pid)
    case $(cat "$lib/answer") in *"\"$1"*) return 0 ;; esac
    why="another version answers"
    return 1
  fi
  why=$(head -n 1 "$lib/refusal" 2>/dev/null | cut -c1-300)
  # A version from before the built-in function: then its own process must be what serves.
  case $why in
    *ResourceNotFound*)
      client 5 ls && server_pid=$(first_line "$pidfile") &&
        [ "$(readlink "/proc/$server_pid/exe")" = "$lib/versions/$1/hob" ]
      return
      ;;
  esac
  why=${why:-no answer}
  return 1
}

# replace VERSION: makes `current` lead there, in one step.
replace() {
  rm -f "$current.new"
  ln -s "versions/$1" "$current.new" || return 1
  # An old mv has no -T and would move it into the directory that `current` leads to.
  mv -T -f "$current.new" "$current" 2>/dev/null ||
    "$lib/versions/$1/hob" helper rename "$current.new" "$current" 2>/dev/null ||
    { rm -f "$current" && mv "$current.new" "$current"; }
  sync
}

alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null; }

start_plain() {
  mkdir -p "$run" "$data" && cd / || return 1
  $(apart) "$current/hob" serve --config "$etc/hob.toml" </dev/null >>"$log" 2>&1 &
  echo $! >"$pidfile"
}

stop_plain() {
  serving=$(first_line "$pidfile") || return 0
  case $(readlink "/proc/$serving/exe" 2>/dev/null) in */hob* | "") ;; *) return 0 ;; esac
  kill "$serving" 2>/dev/null
  patience=70
  while alive "$serving" && [ $patience -gt 0 ]; do sleep 1; patience=$((patience - 1)); done
  kill -9 "$serving" 2>/dev/null
  rm -f "$pidfile"
}

# service_do start|stop|restart
service_do() {
  case $(service) in
    systemd) systemctl --no-block "$1" hob.service ;;
    openrc) rc-service hob "$1" ;;
    *)
      [ "$1" = start ] || stop_plain
      [ "$1" = stop ] || start_plain
      ;;
  esac
}

# True if a server of ours runs that was not told to end.
crashed() {
  case $(service) in
    systemd) case $(systemctl is-active hob.service) in failed) return 0 ;; esac; return 1 ;;
    openrc) return 1 ;;
    *) ! alive "$(first_line "$pidfile")" ;;
  esac
}

# outcome STATE TEXT: what the deployer, or --status, reads.
outcome() {
  printf '%s %s %s\n' "$attempt" "$1" "$2" >"$lib/outcome.new" && mv -f "$lib/outcome.new" "$lib/outcome"
  sync
}

# What the log has had since a server was asked to hand over; and what that says if its successor is no
# good.
said() { tail -c "+$mark" "$log" 2>/dev/null; }
goes_on="this server goes on"

# await VERSION SECONDS: true as soon as that version answers.
await() {
  until [ "$2" -le "${waited:=0}" ]; do
    answers "$1" && return 0
    if [ -z "$mark" ]; then
      crashed && why="it ended at its start: $(tail -n 1 "$log" 2>/dev/null | cut -c1-300)" && return 1
    elif said | grep -q "$goes_on"; then
      # Its own last words, or what the old server knows of its end.
      why=$(said | grep -v -e "$goes_on" -e ' upgrade: start ' | tail -n 1 | cut -c1-300)
      if [ -n "$why" ]; then
        why="it ended at its start: $why"
      else
        why="it did not take over: $(said | sed -n "s/.* upgrade: \(.*\); $goes_on.*/\1/p" | tail -n 1)"
      fi
      return 1
    fi
    sleep 1
    waited=$((waited + 1))
  done
  why="no good answer in $2 s: $why"
  return 1
}

# take_over NEW SECONDS [OLD]: what `current` leads to is to serve. A server that can hand its
# sockets over is asked to, so that nobody is refused; otherwise it is started again.
take_over() {
  waited=0 mark=
  if [ -n "${3:-}" ] && answers "$3" && [ -n "$(number server_pid)" ]; then
    mark=$(($(size_of "$log") + 1))
    kill -USR2 "$server_pid"
    if await "$1" "$2"; then
      [ "$(service)" = systemd ] || echo "$server_pid" >"$pidfile"
      return 0
    fi
    return 1
  fi
  service_do restart || { why="the service did not start"; return 1; }
  await "$1" "$2"
}

# end_all_of VERSION: a successor that hangs would be in the way of the next one.
end_all_of() {
  for process in /proc/[0-9]*; do
    [ "$(readlink "$process/exe" 2>/dev/null)" != "$lib/versions/$1/hob" ] || kill -9 "${process##*/}"
  done
}

# back NEW OLD WHY: to the version before, or to none.
back() {
  if [ -z "$2" ]; then
    service_do stop
    rm -f "$current" "$lib/trial"
    outcome failed "$3; nothing was installed before"
    return
  fi
  reason=$3
  replace "$2"
  # The old one may never have stopped serving.
  if answers "$2"; then
    end_all_of "$1"
  else
    waited=0
    take_over "$2" 60 "$1" || { waited=0 mark=; service_do restart; await "$2" 60; } ||
      reason="$reason; and it does not answer either: $why"
  fi
  rm -f "$lib/trial"
  outcome rolled-back "rolled back to $2: $reason"
}

# One change at a time. A lock does not outlive its process, nor a reboot.
locked() {
  # shellcheck disable=SC2046 # words are wanted
  set -- $(first_line "$lib/lock")
  [ "${2:-}" = "$(boot_id)" ] && alive "${1:-}"
}
lock() { ! locked && echo "$$ $(boot_id)" >"$lib/lock"; }
unlock() { rm -f "$lib/lock"; }

# activate ATTEMPT NEW PROBE_SECONDS CONFIRM_SECONDS: the board alone decides. It is started in a
# session of its own, and goes on when the link is gone.
activate() {
  attempt=$1 new=$2 why=
  old=$(version_now)
  [ "$old" != "$new" ] || old=$(first_line "$lib/previous")
  lock || return
  rm -f "$lib/confirmed"
  outcome running "activating $new"
  echo "$new ${old:--} $(boot_id) $attempt" >"$lib/trial"
  was=$(version_now)
  if ! replace "$new"; then
    rm -f "$lib/trial"
    outcome failed "the disk cannot be written"
  elif ! take_over "$new" "$3" "$was"; then
    back "$new" "$old" "$why"
  else
    outcome probed "$new answers"
    left=$4
    while [ "$(first_line "$lib/confirmed")" != "$attempt" ] && [ "$left" -gt 0 ]; do
      sleep 1
      left=$((left - 1))
    done
    if [ "$(first_line "$lib/confirmed")" = "$attempt" ]; then
      settle
    else
      back "$new" "$old" "the deployer did not confirm it in $4 s, the link may have dropped"
    fi
  fi
  unlock
}

# The trial is over: the version stays, one before it is kept.
settle() {
  [ -z "$old" ] || [ "$old" = "$new" ] || echo "$old" >"$lib/previous"
  rm -f "$lib/trial"
  before=$(first_line "$lib/previous")
  for path in "$lib/versions"/*; do
    case ${path##*/} in "$new" | "${before:-$new}") ;; *) rm -rf "$path" ;; esac
  done
  date -u '+%Y-%m-%dT%H:%M:%SZ' >"$lib/since"
  outcome "done" "$new serves"
}

# boot: before the server starts. A trial of another boot was cut short by a loss of power.
boot() {
  [ -f "$lib/trial" ] || return 0
  # shellcheck disable=SC2046 # words are wanted
  set -- $(first_line "$lib/trial")
  [ "${3:-}" != "$(boot_id)" ] || return 0
  attempt=${4:--}
  rm -rf "$lib/lock" "$lib/trial"
  if [ "${2:--}" = - ] || [ ! -x "$lib/versions/$2/hob" ]; then
    outcome failed "the board went down before $1 was confirmed; nothing was installed before"
  else
    replace "$2"
    outcome rolled-back "rolled back to $2: the board went down before $1 was confirmed"
  fi
}

look() {
  echo "hob-look 1"
  echo "arch $(uname -m)"
  # Where a 64-bit kernel runs 32-bit programs, those are what handlers are built for.
  if [ "$(dd if=/bin/sh bs=1 skip=4 count=1 2>/dev/null)" = "$(printf '\002')" ]; then
    echo "bits 64"
  else
    echo "bits 32"
  fi
  for path in /lib/ld-musl-*; do [ ! -e "$path" ] || echo "libc musl"; done
  for path in /lib/ld-linux* /lib64/ld-linux*; do [ ! -e "$path" ] || echo "libc glibc"; done
  [ ! -r /proc/device-tree/model ] || echo "model $(tr -d '\000' </proc/device-tree/model)"
  echo "uid $uid"
  echo "service $(service)"
  echo "lib $lib"
  echo "free_kib $(free_kib "$lib")"
  echo "writable $(writable "$lib")"
  now=$(version_now)
  [ -z "$now" ] || echo "current $now"
  before=$(first_line "$lib/previous") && echo "previous $before"
  for path in "$lib/versions"/*; do
    [ ! -f "$path/hob" ] || echo "version ${path##*/}"
    [ ! -f "$path/hob.part" ] || echo "part ${path##*/} $(size_of "$path/hob.part")"
  done
  if [ -n "$now" ]; then
    asker=$current/hob
    if [ -x "$asker" ] && client 5 ls; then echo "running yes"; else echo "running no"; fi
  fi
  for path in "$lib/functions"/*; do
    [ ! -f "$path" ] || [ ! -d "$etc/functions/${path##*/}" ] ||
      echo "function ${path##*/} $(first_line "$path")"
  done
  [ ! -f "$lib/since" ] || echo "since $(first_line "$lib/since")"
  [ ! -f "$lib/outcome" ] || echo "outcome $(first_line "$lib/outcome")"
  for path; do [ ! -e "$path" ] || echo "there $path"; done
  echo "end"
}

# Where an upload comes together: a version, or the zip of a function.
place_of() {
  case $1 in zip-*) echo "$lib/incoming/$1" ;; *) echo "$lib/versions/$1" ;; esac
}

# put ID OFFSET: appends standard input. Whoever wrote before is on a link that is gone, but
# may not know it yet.
put() {
  # A function's zip may hold secrets.
  case $1 in zip-*) umask 077 ;; esac
  dir=$(place_of "$1")
  mkdir -p "$dir" || fail "mkdir $dir: it failed"
  if writer=$(first_line "$dir/writer") && alive "$writer" &&
    [ "$(readlink "/proc/$writer/fd/1" 2>/dev/null)" = "$dir/hob.part" ]; then
    kill -9 "$writer"
  fi
  have=$(size_of "$dir/hob.part")
  [ "$have" = "$2" ] || { echo "size $have"; return; }
  exec 3<&0
  cat <&3 >>"$dir/hob.part" &
  echo $! >"$dir/writer"
  # What does not fit now will not fit after a retry: it must not fill the disk meanwhile.
  wait $! || { rm -f "$dir/hob.part"; fail "write $dir/hob.part: the disk may be full"; }
  echo "size $(size_of "$dir/hob.part")"
}

# keep ID SHA256 VERSION: the upload is whole.
keep() {
  dir=$(place_of "$1")
  rm -f "$dir/writer"
  [ -f "$dir/hob.part" ] || [ ! -x "$dir/hob" ] || { echo kept; return; }
  chmod 755 "$dir/hob.part" || fail "there is no upload of $1"
  by=$lib/versions/$3/hob
  [ -x "$by" ] || by=$dir/hob.part
  if [ "$(digest "$dir/hob.part" "$by")" = "$2" ]; then
    sync
    mv -f "$dir/hob.part" "$dir/hob" && sync && echo kept
  else
    rm -f "$dir/hob.part"
    echo spoiled
  fi
}

# await_outcome ATTEMPT SECONDS: its outcome, once it is another than "running".
await_outcome() {
  left=$2
  while [ "$left" -gt 0 ]; do
    case $(first_line "$lib/outcome") in
      "$1 running"*) ;;
      "$1 "*) cut -d' ' -f2- <"$lib/outcome"; return ;;
    esac
    sleep 1
    left=$((left - 1))
  done
  echo "running"
}

# place NAME CONTENT VERSION: the zip's content takes the place of the function's folder. Beside
# the folders it would be taken for one of them.
place() {
  umask 077
  zip=$lib/incoming/zip-$2/hob new=$etc/functions.new/$1 folder=$etc/functions/$1
  hob=$lib/versions/$3/hob
  if [ -f "$zip" ]; then
    rm -rf "$new"
    mkdir -p "$new" "$lib/functions" || fail "mkdir $new: it failed"
    "$hob" helper unfold "$zip" "$new" || fail "unpack function $1: it failed"
    sync
    if [ -d "$folder" ]; then
      "$hob" helper exchange "$new" "$folder" 2>/dev/null ||
        { mv "$folder" "$new.old" && mv "$new" "$folder"; } || fail "replace $folder: it failed"
    else
      mv "$new" "$folder" || fail "write $folder: it failed"
    fi
    echo "$2" >"$lib/functions/$1"
    rm -rf "$etc/functions.new" "$lib/incoming/zip-$2"
  fi
  [ "$(first_line "$lib/functions/$1")" = "$2" ] || return 1
  await_function "$1"
  echo placed
}

# await_function NAME: the server takes folders over within seconds, and whoever deploys one calls it
# next. One that is not valid is listed as well.
await_function() {
  asker=$current/hob
  patience=10
  until client 5 ls && grep -q "^$1 " "$lib/answer"; do
    patience=$((patience - 1))
    [ $patience -gt 0 ] || return 0
    sleep 1
  done
}

# drop NAME: a function that is gone on the deployer's side.
drop() {
  mkdir -p "$etc/functions.new"
  mv "$etc/functions/$1" "$etc/functions.new/$1" && rm -f "$lib/functions/$1"
  rm -rf "$etc/functions.new"
  echo dropped
}
