#include "necrocode/process/system_call_filter.hpp"

#include <asm/ioctls.h>
#include <linux/audit.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <utility>

namespace necrocode::process {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "system_call_filter.cpp does not know this architecture's calls"
#endif

// Newer than the headers; the numbers are the same on all architectures.
constexpr std::uint32_t kOpenTreeAttr = 467;

/// Arguments are compared by their lower half: each of these is an `int` to the kernel.
constexpr std::uint32_t argument(int index) {
  return static_cast<std::uint32_t>(offsetof(seccomp_data, args) +
                                    sizeof(std::uint64_t) * static_cast<std::size_t>(index));
}

class Program {
 public:
  /// `body`, when `value` is what is loaded; it must end in an answer.
  template <class Body>
  void on(std::uint32_t value, const Body& body) {
    const std::size_t jump = code_.size();
    add(BPF_JMP | BPF_JEQ | BPF_K, value);
    body();
    code_[jump].jf = static_cast<std::uint8_t>(code_.size() - jump - 1);
  }
  void refuse(std::initializer_list<long> calls, int error) {
    for (const long call : calls) {
      on(static_cast<std::uint32_t>(call), [&] { answer_error(error); });
    }
  }

  void load(std::uint32_t offset) { add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void mask(std::uint32_t bits) { add(BPF_ALU | BPF_AND | BPF_K, bits); }
  void answer(std::uint32_t action) { add(BPF_RET | BPF_K, action); }
  void answer_error(int error) {
    answer(SECCOMP_RET_ERRNO | (static_cast<std::uint32_t>(error) & SECCOMP_RET_DATA));
  }
  void allow() { answer(SECCOMP_RET_ALLOW); }
  void allow_each(std::initializer_list<std::uint32_t> values) {
    for (const std::uint32_t value : values) on(value, [this] { allow(); });
  }

  // Of what is loaded. A condition that does not hold goes on behind the next instruction.
  void if_not_equal(std::uint32_t value) { add(BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0); }
  void if_at_least(std::uint32_t value) { add(BPF_JMP | BPF_JGE | BPF_K, value, 0, 1); }
  void if_any_bit(std::uint32_t bits) { add(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1); }

  std::vector<sock_filter> take() { return std::move(code_); }

 private:
  void add(std::uint32_t operation, std::uint32_t value, std::uint8_t if_true = 0,
           std::uint8_t if_false = 0) {
    code_.push_back({static_cast<std::uint16_t>(operation), if_true, if_false, value});
  }
  std::vector<sock_filter> code_;
};

void check_architecture(Program& program) {
  program.load(offsetof(seccomp_data, arch));
  program.if_not_equal(kArchitecture);
  program.answer(SECCOMP_RET_KILL_PROCESS);
  program.load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  constexpr std::uint32_t kX32Bit = 0x40000000;
  program.if_at_least(kX32Bit);
  program.answer_error(ENOSYS);
#endif
}

/// New namespaces (with them a process has capabilities over much of the kernel), mounts, and parts
/// of the kernel that tests do not need and in which most ways out were found.
void refuse_always(Program& program) {
  program.refuse(
      {SYS_unshare,  SYS_setns,       SYS_mount,     SYS_umount2,         SYS_pivot_root,
       SYS_chroot,   SYS_move_mount,  SYS_open_tree, kOpenTreeAttr,       SYS_fsopen,
       SYS_fsconfig, SYS_fsmount,     SYS_fspick,    SYS_mount_setattr,   SYS_keyctl,
       SYS_add_key,  SYS_request_key, SYS_bpf,       SYS_perf_event_open, SYS_userfaultfd,
       SYS_syslog},
      EPERM);
  // Without it libuv and others do as on older kernels.
  program.refuse({SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register}, ENOSYS);
  // Its flags lie in memory, which a filter cannot read; libraries then call clone().
  program.refuse({SYS_clone3}, ENOSYS);
  program.on(SYS_clone, [&] {
    program.load(argument(0));
    program.if_any_bit(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                       CLONE_NEWPID | CLONE_NEWNET);
    program.answer_error(EPERM);
    program.allow();
  });
  // They type into a terminal that the process was given.
  program.on(SYS_ioctl, [&] {
    program.load(argument(1));
    for (const std::uint32_t request : {TIOCSTI, TIOCLINUX}) {
      program.on(request, [&] { program.answer_error(EPERM); });
    }
    program.allow();
  });
}

/// In namespaces: no family that has none (vsock reaches the machine's own host), and of netlink
/// only what lists addresses.
void filter_sockets_in_namespaces(Program& program) {
  program.on(SYS_socket, [&] {
    program.load(argument(0));
    program.allow_each({AF_UNIX, AF_INET, AF_INET6});
    program.on(AF_NETLINK, [&] {
      program.load(argument(2));
      program.allow_each({NETLINK_ROUTE});
      program.answer_error(EAFNOSUPPORT);
    });
    program.answer_error(EAFNOSUPPORT);
  });
}

/// On the host no socket of the Unix family is made: Landlock does not judge whom it would be
/// connected to by path, and a container engine's socket is the whole machine.
void filter_sockets_on_host(Program& program, FilterKind kind) {
  constexpr auto kTypeFlags = static_cast<std::uint32_t>(SOCK_NONBLOCK | SOCK_CLOEXEC);
  const auto check_type = [&] {
    program.load(argument(1));
    program.mask(~kTypeFlags);
    if (kind == FilterKind::kOpenNetwork) {
      program.allow_each({SOCK_STREAM, SOCK_DGRAM});
    } else {
      program.on(SOCK_STREAM, [&] {
        // MPTCP, SCTP and SMC are streams too, and unknown to Landlock.
        program.load(argument(2));
        program.allow_each({0, IPPROTO_TCP});
        program.answer_error(EAFNOSUPPORT);
      });
    }
    program.answer_error(EAFNOSUPPORT);
  };
  program.on(SYS_socket, [&] {
    program.load(argument(0));
    if (kind != FilterKind::kNoNetwork) {
      program.on(AF_INET, check_type);
      program.on(AF_INET6, check_type);
    }
    program.answer_error(EAFNOSUPPORT);
  });
  // A pair is connected to itself for good, but for datagrams, which can be sent elsewhere.
  program.on(SYS_socketpair, [&] {
    program.load(argument(1));
    program.mask(~kTypeFlags);
    program.allow_each({SOCK_STREAM, SOCK_SEQPACKET});
    program.answer_error(EAFNOSUPPORT);
  });
}

/// MSG_FASTOPEN connects without being a connect(), so Landlock never sees it; and what listens
/// without bind() gets a port that Landlock was not asked for.
void refuse_ways_around_landlock(Program& program) {
  const auto refuse_flag = [&](std::uint32_t call, int flags_at) {
    program.on(call, [&] {
      program.load(argument(flags_at));
      program.if_any_bit(MSG_FASTOPEN);
      program.answer_error(EPERM);
      program.allow();
    });
  };
  refuse_flag(SYS_sendto, 3);
  refuse_flag(SYS_sendmsg, 2);
  refuse_flag(SYS_sendmmsg, 3);
  program.refuse({SYS_listen}, EACCES);
}

}  // namespace

std::vector<sock_filter> system_call_filter(FilterKind kind) {
  Program program;
  check_architecture(program);
  refuse_always(program);
  if (kind == FilterKind::kInNamespaces) {
    filter_sockets_in_namespaces(program);
  } else {
    filter_sockets_on_host(program, kind);
    if (kind != FilterKind::kOpenNetwork) refuse_ways_around_landlock(program);
    // Other processes, and their System V and POSIX IPC, are those of the whole host.
    program.refuse(
        {SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_pidfd_getfd, SYS_shmget,
         SYS_shmat, SYS_shmctl, SYS_semget, SYS_semctl, SYS_semop, SYS_semtimedop, SYS_msgget,
         SYS_msgctl, SYS_msgsnd, SYS_msgrcv, SYS_mq_open, SYS_mq_unlink},
        EPERM);
  }
  program.allow();
  return program.take();
}

}  // namespace necrocode::process
