// Which sandbox is used, the one that is none, and what commands get of our environment.
#include "necrocode/process/sandbox.hpp"

#include <array>
#include <cstdlib>
#include <future>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/process/host_view.hpp"
#include "necrocode/process/sandbox_parts.hpp"

namespace necrocode::process {
namespace {

namespace fs = std::filesystem;

class Unsandboxed final : public Sandbox {
 public:
  Unsandboxed(Supervisor& supervisor, const ResourceLimits& limits)
      : supervisor_(supervisor), limits_(limits) {}

  CommandResult run(const SandboxedCommand& command, const CallContext& context,
                    const OutputSink& sink) override {
    Command plain = command.command;
    if (plain.working_directory.empty()) plain.working_directory = command.workspace;
    plain.limits = limits_of(command, limits_);
    hand_out_host_gate(command);
    return supervisor_.run(plain, context, sink);
  }
  void require_usable() override {}
  std::string_view name() const override { return "unsandboxed"; }
  std::vector<std::string> missing() const override {
    return {"nothing is kept from the command: it reads and writes what this user may",
            "the command has the network of the host, not the gate alone"};
  }
  bool can_cover() const override { return false; }
  Gate make_gate() override { return make_host_gate(); }
  std::string limits() const override { return supervisor_.describe_limits(limits_); }

 private:
  Supervisor& supervisor_;
  ResourceLimits limits_;
};

/// Bubblewrap, and what comes next where the host refuses it. Which one it is shows when it is
/// first asked for: bubblewrap's trial goes on until then.
class BestSandbox final : public Sandbox {
 public:
  BestSandbox(Supervisor& supervisor, const ResourceLimits& limits)
      : supervisor_(supervisor), limits_(limits) {
    try {
      bubblewrap_ = make_bubblewrap_sandbox(supervisor, limits);
    } catch (const CannotSandbox& error) {
      refusal_ = error.reason;
    }
  }

  CommandResult run(const SandboxedCommand& command, const CallContext& context,
                    const OutputSink& sink) override {
    return chosen().run(command, context, sink);
  }
  void require_usable() override { chosen(); }
  std::string_view name() const override { return chosen().name(); }
  std::vector<std::string> missing() const override {
    std::vector<std::string> sentences = chosen().missing();
    if (!refusal_.empty()) sentences.insert(sentences.begin(), "not used: " + refusal_);
    return sentences;
  }
  bool can_cover() const override { return chosen().can_cover(); }
  Gate make_gate() override { return chosen().make_gate(); }
  std::string limits() const override { return supervisor_.describe_limits(limits_); }

 private:
  Sandbox& chosen() const { return *choice_.get(); }

  Sandbox* choose() {
    if (bubblewrap_) {
      try {
        bubblewrap_->require_usable();
        return bubblewrap_.get();
      } catch (const CannotSandbox& error) {
        refusal_ = error.reason;
      }
    }
    landlock_ = make_landlock_sandbox(supervisor_, limits_);
    try {
      landlock_->require_usable();
    } catch (const CannotSandbox& error) {
      throw CannotSandbox(refusal_ + "; " + error.reason);
    }
    return landlock_.get();
  }

  Supervisor& supervisor_;
  ResourceLimits limits_;
  std::unique_ptr<Sandbox> bubblewrap_;  ///< null where it is not installed
  std::unique_ptr<Sandbox> landlock_;    ///< null until it is needed
  std::string refusal_;                  ///< why not bubblewrap
  /// Made when it is first asked for; what it made is read through it only.
  std::shared_future<Sandbox*> choice_ =
      std::async(std::launch::deferred, [this] { return choose(); });
};

}  // namespace

std::unique_ptr<Sandbox> make_unsandboxed(Supervisor& supervisor, const ResourceLimits& limits) {
  return std::make_unique<Unsandboxed>(supervisor, limits);
}

std::unique_ptr<Sandbox> make_sandbox(Supervisor& supervisor, const ResourceLimits& limits) {
  return std::make_unique<BestSandbox>(supervisor, limits);
}

std::vector<std::string> clean_environment() {
  static constexpr std::array kCopied = {"LANG",     "LANGUAGE",   "LC_ALL",      "LC_COLLATE",
                                         "LC_CTYPE", "LC_NUMERIC", "LC_MESSAGES", "LC_TIME",
                                         "TZ",       "JAVA_HOME"};
  constexpr std::size_t kValueBytesMax = 256;  // a locale or a folder, not a payload
  const char* path = std::getenv("PATH");
  auto folders = path_folders(path != nullptr ? path : "");
  if (folders.empty()) folders = path_folders(kDefaultPath);
  std::vector<std::string> names;
  for (const fs::path& folder : folders) names.push_back(folder.string());

  std::vector<std::string> env = {"PATH=" + join(names, ":"),
                                  "HOME=/tmp",
                                  "TERM=dumb",
                                  "SHELL=/bin/sh",
                                  "CI=true",
                                  "USER=nobody",
                                  "LOGNAME=nobody"};
  for (const char* name : kCopied) {
    const char* value = std::getenv(name);
    if (value == nullptr || std::string_view(value).size() > kValueBytesMax) continue;
    env.push_back(std::string(name) + "=" + value);
  }
  for (const auto& [name, value] : find_toolchains(folders, home_folders()).env) {
    env.push_back(name + "=" + value);
  }
  return env;
}

}  // namespace necrocode::process
