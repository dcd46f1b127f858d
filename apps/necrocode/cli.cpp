#include "cli.hpp"

#include <CLI/CLI.hpp>

#include "necrocode/base/exit_code.hpp"
#include "terminal.hpp"

namespace necrocode::app {

struct Cli::State {
  std::unique_ptr<CLI::App> root;  // of the outermost command only
  CLI::App* app = nullptr;
  std::function<int()> run;
  std::vector<std::unique_ptr<Cli>> commands;
};

Cli::Cli(std::string name, std::string description) : state_(std::make_unique<State>()) {
  state_->root = std::make_unique<CLI::App>(std::move(description), std::move(name));
  state_->app = state_->root.get();
  state_->app->require_subcommand(1);
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
  state_->app->add_option(names, value, help);
  return *this;
}
Cli& Cli::option(const std::string& names, int& value, int min, int max, const std::string& help) {
  state_->app->add_option(names, value, help)->check(CLI::Range(min, max));
  return *this;
}
Cli& Cli::option(const std::string& names, double& value, double min, double max,
                 const std::string& help) {
  state_->app->add_option(names, value, help)->check(CLI::Range(min, max));
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

Cli& Cli::action(std::function<int()> run) {
  state_->run = std::move(run);
  return *this;
}

int Cli::main(int argc, const char* const* argv) {
  try {
    state_->app->parse(argc, argv);
  } catch (const CLI::Success& success) {
    return state_->app->exit(success);  // --help
  } catch (const CLI::ParseError& error) {
    note("necrocode: " + std::string(error.what()));
    note("Run with --help for the options.");
    return static_cast<int>(ExitCode::kUsage);
  }
  const std::function<const Cli*(const Cli&)> find = [&find](const Cli& cli) -> const Cli* {
    for (const auto& command : cli.state_->commands) {
      if (command->state_->app->parsed()) return find(*command);
    }
    return &cli;
  };
  return find(*this)->state_->run();
}

}  // namespace necrocode::app
