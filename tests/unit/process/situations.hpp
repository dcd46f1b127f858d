// Where a sandbox may have to work: as root, as an ordinary user, and where namespaces are refused.
#pragma once

#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <exception>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "necrocode/process/system_call_filter.hpp"

namespace necrocode::test {

/// On a thread of its own, whose user and filters the processes get that it starts: the kernel
/// knows them by thread, only the C library sets them for all.
inline void on_own_thread(const std::function<void()>& body) {
  std::exception_ptr thrown;
  std::thread([&] {
    try {
      body();
    } catch (...) {
      thrown = std::current_exception();
    }
  }).join();
  if (thrown) std::rethrow_exception(thrown);
}

/// Nobody, when we are root; else as we are.
inline void become_nobody() {
  constexpr int kNobody = 65534;
  if (::getuid() != 0) return;
  if (::syscall(SYS_setgroups, 0, nullptr) != 0 ||
      ::syscall(SYS_setresgid, kNobody, kNobody, kNobody) != 0 ||
      ::syscall(SYS_setresuid, kNobody, kNobody, kNobody) != 0) {
    throw std::runtime_error("cannot become nobody");
  }
}

inline void install_filter(std::vector<sock_filter> code) {
  const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0) {
    throw std::runtime_error("cannot install a filter");
  }
}

/// As in a container: its engine's filter refuses namespaces and mounts, and does not know clone3.
inline void refuse_namespaces() {
  install_filter(process::system_call_filter(process::FilterKind::kInNamespaces));
}

inline void refuse_call(long number, int error) {
  install_filter({{BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
                  {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, static_cast<unsigned>(number)},
                  {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)},
                  {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}});
}

enum class Situation { kAsWeAre, kAsNobody, kNamespacesRefused, kNobodyAndRefused };

inline std::string name_of(Situation situation) {
  switch (situation) {
    case Situation::kAsWeAre:
      return "AsWeAre";
    case Situation::kAsNobody:
      return "AsNobody";
    case Situation::kNamespacesRefused:
      return "NamespacesRefused";
    default:
      return "NobodyAndRefused";
  }
}

inline void in(Situation situation, const std::function<void()>& body) {
  on_own_thread([&] {
    if (situation == Situation::kAsNobody || situation == Situation::kNobodyAndRefused) {
      become_nobody();
    }
    if (situation == Situation::kNamespacesRefused || situation == Situation::kNobodyAndRefused) {
      refuse_namespaces();
    }
    body();
  });
}

}  // namespace necrocode::test
