# The kernel of a machine that runs one program: no debugging of others, no rare protocols, reboot instead of limping.
# The units' own sandboxes stand on top of this.
{ lib, pkgs, ... }:
{
  # No other kernel from the running one.
  security.protectKernelImage = true;
  boot.kexec.enable = false;

  boot.kernelParams = [
    # Kernel objects of one size do not share memory with others: one overflow less that leads anywhere.
    "slab_nomerge"
    # Memory is handed out zeroed.
    "init_on_alloc=1"
  ]
  ++ lib.optional pkgs.stdenv.hostPlatform.isx86_64 "vsyscall=none";

  # Protocols that are loaded on demand by whoever opens a socket, and are nobody's here.
  boot.blacklistedKernelModules = [
    "dccp"
    "rds"
    "sctp"
    "tipc"
  ];

  # Cores would hold passwords, and nobody reads them here.
  systemd.coredump.enable = false;

  boot.kernel.sysctl = {
    "kernel.core_pattern" = "|/bin/false";
    "kernel.dmesg_restrict" = 1;
    # Postgres and tokio do without; it has been a way around sandboxes.
    "kernel.io_uring_disabled" = 2;
    "kernel.kptr_restrict" = 2;
    # With panic=1 of amazon-image.nix: a kernel that has lost its way reboots, and bootstrap finds all it needs.
    "kernel.panic_on_oops" = 1;
    "kernel.sysrq" = 0;
    "kernel.unprivileged_bpf_disabled" = 1;
    "kernel.yama.ptrace_scope" = 2;
    "net.core.bpf_jit_harden" = 2;
    "dev.tty.ldisc_autoload" = 0;
    "fs.protected_fifos" = 2;
    "fs.protected_regular" = 2;
    "fs.suid_dumpable" = 0;

    # One interface, one gateway: nobody tells these hosts another way.
    "net.ipv4.conf.all.accept_redirects" = 0;
    "net.ipv4.conf.default.accept_redirects" = 0;
    "net.ipv4.conf.all.secure_redirects" = 0;
    "net.ipv4.conf.default.secure_redirects" = 0;
    "net.ipv4.conf.all.send_redirects" = 0;
    "net.ipv4.conf.default.send_redirects" = 0;
    "net.ipv6.conf.all.accept_redirects" = 0;
    "net.ipv6.conf.default.accept_redirects" = 0;
  };
}
