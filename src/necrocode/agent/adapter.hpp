// AgentAdapter: how one agent program is called, in ten lines of YAML: docs/agents.md. Those in
// adapters.yaml are compiled in; the configuration's `agents:` adds to them or replaces one.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "necrocode/base/json.hpp"

namespace necrocode::agent {

/// Texts may hold {endpoint} (http://127.0.0.1:PORT), {key}, {model}, {home}, {workspace}; those of
/// argv and resume also {prompt}. What they are replaced by is one argument, one value, or part of
/// a file, never code.
struct AgentAdapter {
  std::string name;                        ///< "codex": also the program, where `argv` is not used
  std::vector<std::string> verified;       ///< versions that were tried: "0.171.0"
  std::vector<std::string> argv;           ///< first round
  std::vector<std::string> resume;         ///< later rounds, of the same session; empty: argv again
  bool prompt_by_stdin = false;            ///< else {prompt} in argv
  std::map<std::string, std::string> env;  ///< endpoint, dummy key, telemetry off
  /// Of its home: relative path to a text, or to a map or list that is written as JSON.
  std::map<std::string, Json> files;
  std::string model;  ///< when nobody names another
};

/// What the texts are filled with.
struct AgentValues {
  std::string prompt, endpoint, key, model;
  std::filesystem::path home, workspace;
};

/// A program to start.
struct AgentCommand {
  std::vector<std::string> argv;
  std::vector<std::string> env;  ///< NAME=value, beside process::clean_environment()
  std::string input;             ///< of its stdin; empty: /dev/null
  std::map<std::string, std::string> files;
};

class AgentAdapters {
 public:
  /// The compiled-in ones, and `configured`: name to a map, as in adapters.yaml; of a name that is
  /// compiled in, its members replace those of that one. Throws ConfigError that names each defect
  /// by JSON pointer.
  explicit AgentAdapters(const Json& configured = {});
  /// nullptr for an unknown one; points into this object.
  const AgentAdapter* find(std::string_view name) const;
  /// By the name of a program's file: what `exec` does for a program that it knows.
  const AgentAdapter* of_program(const std::filesystem::path& program) const;
  std::string names() const;  ///< "claude, codex, opencode, pi"
  const std::map<std::string, AgentAdapter, std::less<>>& all() const { return adapters_; }

 private:
  std::map<std::string, AgentAdapter, std::less<>> adapters_;
};

/// `resumed`: a later round of the same session.
AgentCommand command_of(const AgentAdapter& adapter, const AgentValues& values, bool resumed);
/// The same for what the user wrote on the command line of a program that `adapter` is for (null:
/// an unknown one): its own argv, and the adapter's environment and files.
AgentCommand command_of(const AgentAdapter* adapter, const std::vector<std::string>& argv,
                        const AgentValues& values);

}  // namespace necrocode::agent
