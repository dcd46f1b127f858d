#include "runtime.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <system_error>

#include "necrocode/base/check.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/observe/log.hpp"
#include "terminal.hpp"

namespace necrocode::app {

void CommonOptions::declare(Cli& cli) {
  cli.option("--config", config_file, "configuration file (default: $NECROCODE_CONFIG)");
  cli.option("--data", data_dir, "folder for the services' and runs' files");
  cli.option("--log-level", log_level, "debug, info, warn, error or off");
}

void CommonOptions::declare_services(Cli& cli) {
  cli.option("--url", all_services_url_, "address of all three services, as `serve` prints it");
  cli.option("--registry", registry_url, "Task Registry (default: $TASK_REGISTRY_URL)");
  cli.option("--pool", pool_url, "Repo Pool Manager (default: $REPO_POOL_URL)");
  cli.option("--artifacts", artifacts_url, "Artifact Store (default: $ARTIFACT_STORE_URL)");
}

void CommonOptions::declare_json(Cli& cli, const std::string& help) {
  cli.flag("--json", json, help);
}

Cli& CommonOptions::service_command(Cli& parent, const std::string& name, const std::string& help,
                                    std::function<int()> action) {
  Cli& command = parent.command(name, help);
  declare(command);
  declare_services(command);
  declare_json(command);
  return command.action(std::move(action));
}

std::map<std::string, std::string> CommonOptions::flags() const {
  std::map<std::string, std::string> set;
  const auto add = [&set](const std::string& key, const std::string& value) {
    if (!value.empty()) set[key] = value;
  };
  add("data_dir", data_dir);
  add("log_level", log_level);
  for (const char* key : {"task_registry_url", "repo_pool_url", "artifact_store_url"})
    add(key, all_services_url_);
  add("task_registry_url", registry_url);
  add("repo_pool_url", pool_url);
  add("artifact_store_url", artifacts_url);
  return set;
}

StopOnSignal::StopOnSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  struct sigaction hangup{};
  // A blocked signal reaches the signalfd even when it is ignored: so nohup has to be looked for.
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
    sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signals_ = FileDescriptor(::signalfd(-1, &signals, SFD_CLOEXEC));
  ended_ = FileDescriptor(::eventfd(0, EFD_CLOEXEC));
  if (!signals_ || !ended_) throw_errno("cannot watch signals");
  thread_ = std::jthread([this] { watch(); });
}

void StopOnSignal::watch() {
  for (int seen = 0;;) {
    pollfd waiting[] = {{signals_.get(), POLLIN, 0}, {ended_.get(), POLLIN, 0}};
    if (::poll(waiting, 2, -1) < 0) continue;
    if (waiting[1].revents != 0) return;
    signalfd_siginfo signal{};
    if (::read(signals_.get(), &signal, sizeof signal) != sizeof signal) continue;
    if (signal.ssi_signo != SIGHUP && ++seen > 1) ::_exit(128 + static_cast<int>(signal.ssi_signo));
    source_.request_stop();
  }
}

StopOnSignal::~StopOnSignal() {
  const std::uint64_t one = 1;
  // An eventfd takes this write as long as it is open; it is ours.
  NECROCODE_CHECK(::write(ended_.get(), &one, sizeof one) == sizeof one);
}

void require_folder(const std::string& flag, const std::filesystem::path& folder) {
  const auto refuse = [&](const std::string& reason) {
    throw ConfigError("the folder of " + flag + ", " + folder.string() +
                      ", cannot be used: " + reason);
  };
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) refuse(error.message());
  const std::filesystem::path probe = folder / (".necrocode-probe-" + random_hex(8));
  const FileDescriptor file(::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!file) refuse(std::error_code(errno, std::generic_category()).message());
  ::unlink(probe.c_str());
}

Runtime::Runtime(const CommonOptions& options, std::map<std::string, std::string> extra_flags) {
  std::map<std::string, std::string> flags = options.flags();
  flags.merge(extra_flags);
  loaded_ = config::load(options.config_file, flags);
  credentials_ = config::take_credentials(loaded_.config);
  masker_ = credentials_.masker();
  const bool json = config().log_format == "json" ||
                    (config().log_format == "auto" && ::isatty(STDERR_FILENO) != 1);
  log::configure(log::parse_level(config().log_level).value_or(log::Level::kWarn),
                 json ? log::Format::kJson : log::Format::kText);
  log::set_masker(masker_);
  set_output_masker(masker_);
}

net::RetryPolicy Runtime::retries(int count) const {
  net::RetryPolicy policy;
  policy.retries = count;
  return policy;
}

net::ServiceOptions Runtime::service(const std::string& url, const Secret& token) const {
  net::ServiceOptions options;
  options.base_url = url;
  options.token = token.copy();
  options.retry = retries(config().network_retry_count);
  return options;
}

std::string Runtime::required(const std::string& url, const char* what, const char* flag) const {
  if (!url.empty()) return url;
  throw ConfigError(std::string("no ") + what + " is configured; give " + flag +
                    " or --url, as `necrocode serve` prints it");
}

TaskRegistryClient Runtime::registry() const {
  return TaskRegistryClient(
      service(required(config().task_registry_url, "Task Registry", "--registry"),
              credentials_.registry_token));
}

RepoPoolClient Runtime::pool() const {
  return RepoPoolClient(service(required(config().repo_pool_url, "Repo Pool Manager", "--pool"),
                                credentials_.pool_token));
}

ArtifactStoreClient Runtime::artifacts() const {
  net::ServiceOptions options =
      service(required(config().artifact_store_url, "Artifact Store", "--artifacts"),
              credentials_.artifact_token);
  options.timeout = std::chrono::seconds{60};
  return ArtifactStoreClient(std::move(options));
}

LLMClient Runtime::llm() const {
  LLMConfig llm;
  llm.api_key = credentials_.llm_api_key.copy();
  llm.model = config().llm_model;
  llm.endpoint = config().llm_endpoint;
  llm.timeout_seconds = config().llm_timeout_seconds;
  llm.max_tokens = config().llm_max_tokens;
  llm.temperature = config().llm_temperature;
  llm.retry = retries(config().llm_retry_count);
  return LLMClient(std::move(llm));
}

namespace {

git::GitOptions git_options(const config::Credentials& credentials) {
  git::GitOptions options;
  options.token = credentials.git_token.copy();
  return options;
}

}  // namespace

RunnerParts::RunnerParts(Runtime& runtime, process::Supervisor& the_supervisor, bool unsandboxed)
    : runtime_(runtime),
      sandbox_(unsandboxed ? process::make_unsandboxed(the_supervisor)
                           : process::make_bubblewrap_sandbox(the_supervisor)),
      git_(the_supervisor, git_options(runtime.credentials())),
      llm_(runtime.llm()),
      executor_(llm_, runtime.masker()) {
  const config::Config& config = runtime.config();
  if (!config.task_registry_url.empty()) registry_.emplace(runtime.registry());
  if (!config.repo_pool_url.empty()) pool_.emplace(runtime.pool());
  if (!config.artifact_store_url.empty()) artifacts_.emplace(runtime.artifacts());
}

runner::RunnerServices RunnerParts::services() {
  return {git_,
          *sandbox_,
          executor_,
          leases_,
          runtime_.masker(),
          registry_ ? &*registry_ : nullptr,
          pool_ ? &*pool_ : nullptr,
          artifacts_ ? &*artifacts_ : nullptr};
}

process::Supervisor& supervisor() {
  static process::Supervisor instance;
  return instance;
}

}  // namespace necrocode::app
