# What the scripts here know of each target. Sourced; `target NAME` sets, or fails:
#   triple     as Rust calls it
#   flags      for Rust's compiler, where the triple does not say enough
#   zig        as zig calls it, and the processor, where zig's choice is not low enough
#   machine    e_machine and class of its programs, as binfmt_misc wants them
#   emulator   of qemu's user emulation
#   cpu        the model to emulate, where no board says which: the weakest of that target
targets="aarch64 armv7 armv6 riscv64 x86_64"

target() {
  flags=""
  case $1 in
    aarch64)
      triple=aarch64-unknown-linux-musl zig="-target aarch64-linux-musl"
      machine="02 b7" emulator=qemu-aarch64-static cpu=cortex-a53
      ;;
    armv7)
      triple=armv7-unknown-linux-musleabihf
      zig="-target arm-linux-musleabihf -mcpu=generic+v7a+vfp3-d32+thumb2-neon"
      machine="01 28" emulator=qemu-arm-static cpu=cortex-a7
      ;;
    armv6)
      triple=arm-unknown-linux-musleabihf flags=-Ctarget-cpu=arm1176jzf-s
      zig="-target arm-linux-musleabihf -mcpu=arm1176jzf_s"
      machine="01 28" emulator=qemu-arm-static cpu=arm1176
      ;;
    riscv64)
      triple=riscv64gc-unknown-linux-musl zig="-target riscv64-linux-musl"
      machine="02 f3" emulator=qemu-riscv64-static cpu=rv64
      ;;
    x86_64)
      triple=x86_64-unknown-linux-musl zig="-target x86_64-linux-musl"
      machine="02 3e" emulator=qemu-x86_64-static cpu=qemu64
      ;;
    *)
      echo "$0: no target $1; there are: $targets" >&2
      return 1
      ;;
  esac
}

# The target that this machine is.
own_target() {
  case $(uname -m) in
    armv7*) echo armv7 ;;
    armv6*) echo armv6 ;;
    *) uname -m ;;
  esac
}
