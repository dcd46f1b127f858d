// Runtime: what commands need of the process: settings, credentials, log, clients, children,
// signals. Made in the order that keeps keys safe: own memory protected, supervisor started, then
// keys read.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stop_token>
#include <string>
#include <thread>

#include "cli.hpp"
#include "necrocode/agent/adapter.hpp"
#include "necrocode/agent_runner.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/config/config.hpp"
#include "necrocode/config/credentials.hpp"
#include "necrocode/git/repository.hpp"
#include "necrocode/llm/capabilities.hpp"
#include "necrocode/llm/metering_proxy.hpp"
#include "necrocode/llm/model_metrics.hpp"
#include "necrocode/llm/rate_governor.hpp"
#include "necrocode/outbox/outbox.hpp"
#include "necrocode/process/sandbox.hpp"
#include "necrocode/runner/command_executor.hpp"
#include "necrocode/runner/orchestrator.hpp"
#include "necrocode/runner/turns.hpp"

namespace necrocode::app {

/// The services that a command may talk to.
enum class Service { kRegistry, kPool, kArtifacts };
inline const std::set<Service> kAllServices = {Service::kRegistry, Service::kPool,
                                               Service::kArtifacts};

/// The options that several commands have.
class CommonOptions {
 public:
  bool json = false;

  /// Declares --config, --data, --log-level.
  void declare(Cli& cli);
  /// Declares --url for all of `services`, and --registry, --pool, --artifacts for each of them.
  void declare_services(Cli& cli, const std::set<Service>& services);
  /// Declares --llm-endpoint, --llm-model, --llm-timeout.
  void declare_llm(Cli& cli);
  /// Declares --retry-tests.
  void declare_tests(Cli& cli);
  void declare_log_level(Cli& cli);
  void declare_json(Cli& cli, const std::string& help = "print JSON");
  /// A command that talks to `services`, and prints JSON when asked to.
  Cli& service_command(Cli& parent, const std::string& name, const std::string& help,
                       const std::set<Service>& services, std::function<int()> action);

  /// The settings among them that were given.
  std::vector<config::Flag> flags() const;
  /// Files, environment and flags().
  config::LoadedConfig load() const;

 private:
  struct Given {
    std::string flag;
    std::vector<std::string> keys;
    std::string value;
  };
  void declare_setting(Cli& cli, const std::string& flag, std::vector<std::string> keys,
                       const std::string& help);
  std::string config_file_;
  std::deque<Given> given_;  ///< in the order in which they count; elements keep their place
};

/// SIGINT, SIGTERM and SIGHUP as a stop token; a second SIGINT or SIGTERM, a second later or more,
/// ends the process at once (a terminal that goes away sends more than one SIGHUP). Under nohup
/// SIGHUP stays ignored. One for the process, made before any other thread.
class StopOnSignal {
 public:
  StopOnSignal();
  ~StopOnSignal();
  std::stop_token token() const { return source_.get_token(); }
  CallContext context() const {
    CallContext call;
    call.stop = token();
    return call;
  }

 private:
  void watch();
  std::stop_source source_;
  FileDescriptor signals_;
  FileDescriptor ended_;
  std::jthread thread_;
};

/// As many open files as the system allows: hundreds of runs need more than the usual 1,024. Before
/// the supervisor is made, which inherits it.
void allow_many_files();

/// Makes the folder that `flag` names, and sees that files can be made in it: before anything is
/// claimed or started. Throws ConfigError naming the flag and the reason.
void require_folder(const std::string& flag, const std::filesystem::path& folder);

class Runtime {
 public:
  explicit Runtime(const CommonOptions& options);
  /// With these settings, and without any credential: those of the environment are only taken out
  /// of it.
  explicit Runtime(config::LoadedConfig loaded);

  const config::Config& config() const { return loaded_.config; }
  const config::LoadedConfig& loaded() const { return loaded_; }
  const Masker& masker() const { return *masker_; }
  config::Credentials& credentials() { return credentials_; }

  /// Gets each call of the clients that are made from then on.
  void on_call(std::function<void(const net::CallReport&)> observer) {
    on_call_ = std::move(observer);
  }
  /// The same of calls of the model.
  void on_model_call(std::function<void(const llm::ModelCallReport&)> observer) {
    on_model_call_ = std::move(observer);
  }

  /// Before any client is made: so many runs will send at once, each with a call that waits.
  void expect_runs(int count);

  /// What all clients send through: the process's own, or one that trusts the configured
  /// authorities instead of the system's.
  const std::shared_ptr<net::HttpClient>& http() const { return http_; }
  net::RetryPolicy retries(int count) const;
  net::ServiceOptions service(const std::string& url, const Secret& token) const;
  /// The client of a configured service; throws ConfigError naming the flag when there is none.
  TaskRegistryClient registry(std::shared_ptr<net::CallSpool> spool = {}) const;
  /// Delivers what that client keeps, from the data folder's `outbox`.
  std::shared_ptr<outbox::Outbox> registry_outbox() const;
  RepoPoolClient pool() const;
  ArtifactStoreClient artifacts() const;
  /// The configured one, else the provider's own.
  std::string llm_endpoint() const;
  /// What the registry calls the provider, where nothing else is said: its host.
  std::string llm_host() const;
  /// All of a process's model clients share their rates and what they know of the endpoints.
  LLMClient llm() const;
  /// What one run may spend on the model.
  llm::SpendingLimits spending_limits() const;
  /// What the configuration says of runs.
  runner::RunOptions run_options() const;
  runner::TaskDefaults task_defaults() const;
  /// What each test command may take.
  process::ResourceLimits resource_limits() const;
  /// What each agent program may take.
  process::ResourceLimits agent_limits() const;
  /// The services that agent programs reach, with their keys.
  std::vector<llm::ModelProvider> providers() const;
  /// Of a proxy whose runs share rates with the process's model clients, and caps with all
  /// processes that use the same data folder.
  llm::MeteringProxyOptions metering_proxy_options() const;
  /// Which executor a task is for, by the configuration.
  runner::ExecutorChoices executor_choices() const;
  /// Of the clones and remotes that runs work with.
  git::GitOptions git_options() const;
  /// Where playbooks may come from.
  runner::PlaybookPlaces playbooks() const;
  /// False when the endpoint is one that answers nobody without a key, and there is none.
  bool has_model() const;
  /// Throws ConfigError where has_model() is false, and `chain` has the executor that needs one.
  void require_model_key(const config::ExecutorChain& chain) const;
  /// Throws ConfigError where has_model() is false.
  void require_model_key() const;

 private:
  using Given = std::pair<config::LoadedConfig, config::Credentials>;
  explicit Runtime(Given given);
  void use_llm_settings(std::vector<llm::ModelProvider>& providers) const;
  std::string required(const std::string& url, const char* what, const char* flag) const;
  LLMConfig llm_config() const;
  LLMConfig fallback_config(const Json& fallback, const Secret& key) const;
  config::LoadedConfig loaded_;
  config::Credentials credentials_;
  bool has_credentials_ = false;  ///< they were read, not only taken out of the environment
  std::shared_ptr<const Masker> masker_;
  std::shared_ptr<net::HttpClient> http_;
  std::function<void(const net::CallReport&)> on_call_;
  std::function<void(const llm::ModelCallReport&)> on_model_call_;
  std::shared_ptr<llm::RateGovernor> governor_;
  std::shared_ptr<llm::CapabilityTable> capabilities_;
};

/// The parts that run tasks, for `run`, `worker` and `demo`.
class RunnerParts {
 public:
  /// Throws SecurityError when the host cannot sandbox and `unsandboxed` is not given.
  RunnerParts(Runtime& runtime, process::Supervisor& supervisor, bool unsandboxed);
  /// Services by configuration: those without a URL stay null.
  runner::RunnerServices services();
  const git::Git& git() const { return git_; }
  process::Sandbox& sandbox() { return *sandbox_; }
  const runner::Executors& executors() const { return executors_; }

 private:
  std::map<std::string, runner::MakeExecutor> makers();
  std::unique_ptr<llm::MeteredRun> open_metered(llm::MeteredRunOptions options);
  Runtime& runtime_;
  std::unique_ptr<process::Sandbox> sandbox_;
  runner::BoundedSandbox bounded_sandbox_;
  git::Git git_;
  LLMClient llm_;
  runner::Turns model_calls_;
  agent::AgentAdapters adapters_;
  runner::AgentServices agents_;
  runner::Executors executors_;
  std::mutex proxy_mutex_;
  std::unique_ptr<llm::MeteringProxy> proxy_;  // started when first wanted; guarded by the mutex
  std::optional<TaskRegistryClient> registry_;
  std::optional<RepoPoolClient> pool_;
  std::optional<ArtifactStoreClient> artifacts_;
  std::optional<runner::LeaseKeeper> task_leases_;  // after the clients that they use
  std::optional<runner::LeaseKeeper> slot_leases_;
  std::optional<runner::LogShipper> logs_;
};

/// The process's supervisor, started by main() before anything was read.
process::Supervisor& supervisor();

}  // namespace necrocode::app
