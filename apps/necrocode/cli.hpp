// Cli: the command line, declared once a command. CLI11 stays in cli.cpp.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace necrocode::app {

class Cli {
 public:
  Cli(std::string name, std::string description);
  ~Cli();
  Cli(const Cli&) = delete;
  Cli& operator=(const Cli&) = delete;

  Cli& command(const std::string& name, const std::string& description);
  Cli& flag(const std::string& names, bool& value, const std::string& help);
  Cli& option(const std::string& names, std::string& value, const std::string& help);
  /// The same where an empty value is a mistake: of a variable that is not set, say.
  Cli& text(const std::string& names, std::string& value, const std::string& help);
  Cli& option(const std::string& names, int& value, int min, int max, const std::string& help);
  Cli& option(const std::string& names, double& value, double min, double max,
              const std::string& help);
  Cli& options(const std::string& names, std::vector<std::string>& values, const std::string& help);
  Cli& positional(const std::string& name, std::string& value, const std::string& help);
  Cli& optional_positional(const std::string& name, std::string& value, const std::string& help);
  /// A positional that names a file to read: one that cannot be is a wrong command line.
  Cli& input_file(const std::string& name, std::string& value, const std::string& help);
  /// All that follows "--", which must be there: another program and its arguments, as they are.
  Cli& program(std::vector<std::string>& argv, const std::string& help);
  /// What the command does; its result is the exit code.
  Cli& action(std::function<int()> run);

  /// Parses and runs. 0 for --help; 2 with one line on stderr for a wrong command line.
  int main(int argc, const char* const* argv);

 private:
  struct State;
  explicit Cli(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace necrocode::app
