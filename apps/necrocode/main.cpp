// necrocode: one binary. main() makes the process safe to work in, and hands over to a command.
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <exception>

#include "allocator.hpp"
#include "commands.hpp"
#include "necrocode/base/exit_code.hpp"
#include "necrocode/process/supervisor.hpp"
#include "terminal.hpp"

namespace {

// Where we were started without one of them, the first database or socket that is opened would
// become it, and what is printed would be written there. In the supervisor's helper all three are
// open.
bool fill_standard_descriptors() {
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    // From the lowest up, so that open() takes just this number.
    if (::fcntl(fd, F_GETFD) < 0 && ::open("/dev/null", O_RDWR) != fd) return false;
  }
  return true;
}

int run_command(int argc, char** argv) {
  necrocode::app::Cli cli("necrocode",
                          "Coding-agent runs at fleet scale: isolated, tested, pushed, kept.");
  for (const auto declare :
       {necrocode::app::declare_demo, necrocode::app::declare_serve, necrocode::app::declare_run,
        necrocode::app::declare_exec, necrocode::app::declare_worker, necrocode::app::declare_task,
        necrocode::app::declare_pool, necrocode::app::declare_artifact, necrocode::app::declare_llm,
        necrocode::app::declare_health, necrocode::app::declare_verify,
        necrocode::app::declare_config, necrocode::app::declare_backup}) {
    declare(cli);
  }
  return cli.main(argc, argv);
}

}  // namespace

int main(int argc, char** argv) {
  if (!fill_standard_descriptors()) return static_cast<int>(necrocode::ExitCode::kInternal);
  if (const int code = necrocode::process::supervisor_main(argc, argv); code >= 0) return code;
  necrocode::process::protect_own_memory();
  necrocode::app::give_back_freed_memory();
  std::signal(SIGPIPE, SIG_IGN);
  try {
    return run_command(argc, argv);
  } catch (const std::exception& error) {
    necrocode::app::note("necrocode: " + std::string(error.what()));
    return static_cast<int>(necrocode::exit_code_for(error));
  }
}
