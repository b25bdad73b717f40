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
# What starts a command apart from this session. With neither it has no terminal that could end it.
apart() { if has setsid; then echo setsid; elif has nohup; then echo nohup; fi; }
# What keeps a command from being ended with the session, where logind is told to do that to users.
outlives() {
  [ "$uid" = 0 ] || [ "$(service)" != systemd ] || ! has systemd-run ||
    ! systemd-run --user --scope --quiet true 2>/dev/null || echo systemd-run --user --scope --quiet
}
# Seconds that have passed since some instant. No clock that may be set.
passed() { up=$(first_line /proc/uptime) && printf '%s\n' "${up%%.*}"; }
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

# replace VERSION [BY]: makes `current` lead there, in one step; by the program of a version that is
# known to be good, where mv has no -T and would move it into the directory that `current` leads to.
replace() {
  rm -f "$current.new"
  ln -s "versions/$1" "$current.new" || return 1
  mv -T -f "$current.new" "$current" 2>/dev/null ||
    { [ -n "${2:-}" ] && "$lib/versions/$2/hob" helper rename "$current.new" "$current" 2>/dev/null; } ||
    { rm -f "$current" && mv "$current.new" "$current"; }
  sync
}

alive() { [ -n "${1:-}" ] && kill -0 "$1" 2>/dev/null; }

start_plain() {
  mkdir -p "$run" "$data" && cd / || return 1
  $(apart) "$current/hob" serve --config "$etc/hob.toml" </dev/null >>"$log" 2>&1 &
  echo $! >"$pidfile"
}

# The servers of this installation, which may be two while one takes over from the other.
servers() {
  for process in /proc/[0-9]*; do
    case $({ tr '\000' ' ' <"$process/cmdline"; } 2>/dev/null) in
      *"/hob serve --config $etc/hob.toml ") echo "${process##*/}" ;;
    esac
  done
}

# signal NAME: to all of them.
signal() { for serving in $(servers); do kill -s "$1" "$serving" 2>/dev/null; done; }

stop_plain() {
  signal TERM
  patience=70
  while [ -n "$(servers)" ] && [ $patience -gt 0 ]; do sleep 1; patience=$((patience - 1)); done
  signal KILL
  rm -f "$pidfile"
}

# What OpenRC starts and watches. It ends when the server has, and whoever took over from that.
supervised() {
  mkdir -p "$run" "$data" && cd / || exit
  ending=
  trap 'ending=yes; signal TERM' TERM INT
  "$current/hob" serve --config "$etc/hob.toml" </dev/null &
  echo $! >"$pidfile"
  wait $!
  code=$?
  while serving=$(servers) && [ -n "$serving" ]; do
    while alive "${serving%%[!0-9]*}"; do
      sleep 2 &
      wait $!
    done
  done
  [ -n "$ending" ] || echo "$code" >"$run/ended"
  exit "$code"
}

# drain PID: systemd waits for that. It would wait for nobody who took over from another process:
# such a one is not its child when it hears of it, and is killed as soon as it was asked to end.
drain() {
  ! alive "${1:-}" || kill "$1"
  while alive "${1:-}"; do sleep 0.1 2>/dev/null || sleep 1; done
}

# service_do start|stop|restart
service_do() {
  case $(service) in
    systemd)
      systemctl reset-failed hob.service 2>/dev/null
      systemctl --no-block "$1" hob.service
      ;;
    openrc)
      rm -f "$run/ended"
      rc-service hob "$1"
      ;;
    *)
      [ "$1" = start ] || stop_plain
      [ "$1" = stop ] || start_plain
      ;;
  esac
}

# shows PROPERTY: what systemd says of the unit.
shows() { systemctl show -p "$1" hob.service 2>/dev/null | sed 's/^[A-Za-z]*=//'; }

# True if the server has ended that was started, and not told to end.
crashed() {
  case $(service) in
    systemd) [ "$(shows ActiveState)" = failed ] || [ "$(shows NRestarts)" -gt 0 ] 2>/dev/null ;;
    openrc) [ -e "$run/ended" ] ;;
    *) ! alive "$(first_line "$pidfile")" ;;
  esac
}

# outcome STATE TEXT: what the deployer, or --status, reads.
outcome() {
  printf '%s %s %s\n' "$attempt" "$1" "$2" >"$lib/outcome.new" && mv -f "$lib/outcome.new" "$lib/outcome"
  sync
}

# words [PID]: the last line of that process, or of any server, as far as this user may read it.
words() {
  if [ "$(service)" = systemd ]; then
    journalctl --sync 2>/dev/null
    if [ "$uid" = 0 ]; then unit=--unit; else unit=--user-unit; fi
    journalctl --quiet --boot "$unit" hob.service --lines 1 --output cat _TRANSPORT=stdout \
      ${1:+"_PID=$1"} 2>/dev/null
  elif [ -z "${1:-}" ]; then
    tail -n 1 "$log" 2>/dev/null
  else
    said | grep -v -e "$goes_on" -e ' upgrade: start ' | tail -n 1
  fi | cut -c1-300
}

# What the log has had since a server was asked to hand over; and what that says if its successor is no
# good. Where systemd has the log, it is told the same.
said() {
  case $mark in
    status\ *) now=$(shows StatusText); [ "status $now" = "$mark" ] || printf '%s\n' " $now" ;;
    *) tail -c "+$mark" "$log" 2>/dev/null ;;
  esac
}
goes_on="this server goes on"

# await VERSION SECONDS: true as soon as that version answers.
await() {
  begun=$(passed)
  until [ $(($(passed) - begun)) -ge "$2" ]; do
    answers "$1" && return 0
    if [ -z "$mark" ]; then
      crashed && why="it ended at its start: $(words)" && return 1
    elif said | grep -q "$goes_on"; then
      # Its own last words, or what the old server knows of its end.
      end=$(said | sed -n "s/.* upgrade: \(.*\); $goes_on.*/\1/p" | tail -n 1)
      heir=${end#successor }
      why=$(words "${heir%%:*}")
      if [ -n "$why" ]; then why="it ended at its start: $why"; else why="it did not take over: $end"; fi
      return 1
    fi
    sleep 1
  done
  why="no good answer in $2 s: $why"
  return 1
}

# take_over NEW SECONDS [OLD]: what `current` leads to is to serve. A server that can hand its
# sockets over is asked to, so that nobody is refused; otherwise it is started again.
take_over() {
  mark=
  if [ -n "${3:-}" ] && answers "$3" && [ -n "$(number server_pid)" ]; then
    case $(service) in
      systemd) mark="status $(shows StatusText)" ;;
      *) mark=$(($(size_of "$log") + 1)) ;;
    esac
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
  replace "$2" "$2"
  # The old one may never have stopped serving.
  if answers "$2"; then
    end_all_of "$1"
  else
    take_over "$2" 60 "$1" || { mark=; service_do restart; await "$2" 60; } ||
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
lock() {
  locked || rm -f "$lib/lock"
  (set -C && echo "$$ $(boot_id)" >"$lib/lock") 2>/dev/null
}
unlock() { rm -f "$lib/lock"; }

# activate ATTEMPT NEW PROBE_SECONDS CONFIRM_SECONDS: the board alone decides. It is started in a
# session of its own, and goes on when the link is gone.
activate() {
  attempt=$1 new=$2 why=
  old=$(version_now)
  [ "$old" != "$new" ] || old=$(first_line "$lib/previous")
  lock || { echo "$attempt" >"$lib/refused"; return; }
  rm -f "$lib/confirmed"
  outcome running "activating $new"
  echo "$new ${old:--} $(boot_id) $attempt" >"$lib/trial"
  was=$(version_now)
  if ! replace "$new" "$was"; then
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
    replace "$2" "$2"
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
    [ "$(first_line "$lib/refused")" != "$1" ] || { echo "failed another deployment runs there"; return; }
    sleep 1
    left=$((left - 1))
  done
  echo "running"
}
