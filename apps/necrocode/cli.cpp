#include "cli.hpp"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "necrocode/base/exit_code.hpp"
#include "necrocode/base/text.hpp"
#include "terminal.hpp"

namespace necrocode::app {

struct Cli::State {
  std::unique_ptr<CLI::App> root;  // of the outermost command only
  CLI::App* app = nullptr;
  std::function<int()> run;
  std::vector<std::string>* program = nullptr;
  std::vector<std::unique_ptr<Cli>> commands;

  const Cli* find(std::string_view name) const {
    for (const auto& command : commands) {
      if (command->state_->app->get_name() == name) return command.get();
    }
    return nullptr;
  }
};

namespace {

int refuse(const std::string& why) {
  note("necrocode: " + why);
  note("Run with --help for the options.");
  return static_cast<int>(ExitCode::kUsage);
}

}  // namespace

Cli::Cli(std::string name, std::string description) : state_(std::make_unique<State>()) {
  state_->root = std::make_unique<CLI::App>(std::move(description), std::move(name));
  state_->app = state_->root.get();
  state_->app->require_subcommand(1);
  state_->app->set_version_flag("--version", "necrocode " NECROCODE_VERSION);
}

Cli::Cli(std::unique_ptr<State> state) : state_(std::move(state)) {}
Cli::~Cli() = default;

Cli& Cli::command(const std::string& name, const std::string& description) {
  auto state = std::make_unique<State>();
  state->app = state_->app->add_subcommand(name, description);
  state_->app->require_subcommand(1);
  state_->commands.push_back(std::unique_ptr<Cli>(new Cli(std::move(state))));
  return *state_->commands.back();
}

Cli& Cli::flag(const std::string& names, bool& value, const std::string& help) {
  state_->app->add_flag(names, value, help);
  return *this;
}
Cli& Cli::option(const std::string& names, std::string& value, const std::string& help) {
  CLI::Option* option = state_->app->add_option(names, value, help);
  if (!value.empty()) option->capture_default_str();
  return *this;
}
Cli& Cli::text(const std::string& names, std::string& value, const std::string& help) {
  const auto problem = [](const std::string& given) {
    return given.empty() ? std::string("must not be empty") : std::string();
  };
  state_->app->add_option(names, value, help)->check(problem);
  return *this;
}
Cli& Cli::option(const std::string& names, int& value, int min, int max, const std::string& help) {
  state_->app->add_option(names, value, help)->check(CLI::Range(min, max))->capture_default_str();
  return *this;
}
Cli& Cli::option(const std::string& names, double& value, double min, double max,
                 const std::string& help) {
  state_->app->add_option(names, value, help)->check(CLI::Range(min, max))->capture_default_str();
  return *this;
}
Cli& Cli::options(const std::string& names, std::vector<std::string>& values,
                  const std::string& help) {
  // One value each time the option is given, so that a positional may follow.
  state_->app->add_option(names, values, help)->expected(1)->take_all();
  return *this;
}
Cli& Cli::positional(const std::string& name, std::string& value, const std::string& help) {
  state_->app->add_option(name, value, help)->required();
  return *this;
}
Cli& Cli::optional_positional(const std::string& name, std::string& value,
                              const std::string& help) {
  state_->app->add_option(name, value, help);
  return *this;
}

Cli& Cli::input_file(const std::string& name, std::string& value, const std::string& help) {
  const auto problem = [](const std::string& file) -> std::string {
    std::error_code error;
    if (std::filesystem::is_directory(file, error)) error = {EISDIR, std::generic_category()};
    if (!error && ::access(file.c_str(), R_OK) != 0) error = {errno, std::generic_category()};
    return error ? "cannot read " + file + ": " + error.message() : std::string();
  };
  state_->app->add_option(name, value, help)->required()->check(problem);
  return *this;
}

Cli& Cli::program(std::vector<std::string>& argv, const std::string& help) {
  state_->program = &argv;
  state_->app->footer("Behind \"--\", PROGRAM [ARGUMENTS]...: " + help);
  return *this;
}

Cli& Cli::action(std::function<int()> run) {
  state_->run = std::move(run);
  return *this;
}

int Cli::main(int argc, const char* const* argv) {
  // The words before the first option are commands; CLI11 does not say which one it does not know.
  const Cli* command = this;
  for (int i = 1; i < argc && !command->state_->commands.empty(); ++i) {
    const std::string_view word = argv[i];
    if (word.starts_with('-')) break;
    const Cli* next = command->state_->find(word);
    if (!next) {
      std::vector<std::string> known;
      for (const auto& one : command->state_->commands)
        known.push_back(one->state_->app->get_name());
      return refuse("there is no command \"" + shorten(word, 100) + "\"; did you mean \"" +
                    nearest(word, known) + "\"?");
    }
    command = next;
  }
  // What belongs to another program is not ours to read.
  int own = argc;
  if (std::vector<std::string>* program = command->state_->program) {
    const auto is = [&](std::string_view word) {
      return std::find(argv, argv + own, word) != argv + own;
    };
    own = static_cast<int>(std::find(argv, argv + argc, std::string_view("--")) - argv);
    program->assign(argv + std::min(own + 1, argc), argv + argc);
    if (program->empty() && !is("--help") && !is("-h")) {
      return refuse("no program is named; write it behind \"--\": necrocode " +
                    command->state_->app->get_name() + " [OPTIONS] -- PROGRAM [ARGUMENTS]...");
    }
  }
  try {
    state_->app->parse(own, argv);
  } catch (const CLI::Success& success) {
    return state_->app->exit(success);  // --help, --version
  } catch (const CLI::ParseError& error) {
    return refuse(error.what());
  }
  return command->state_->run();
}

}  // namespace necrocode::app
