#include "runtime.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <system_error>

#include "necrocode/base/check.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/llm/prices.hpp"
#include "necrocode/observe/log.hpp"
#include "terminal.hpp"

namespace necrocode::app {
namespace {

constexpr const char* kAnthropicEndpoint = "https://api.anthropic.com/v1";

std::string default_endpoint(const std::string& provider) {
  return provider == "anthropic" ? kAnthropicEndpoint : LLMConfig().endpoint;
}

}  // namespace

void CommonOptions::declare(Cli& cli) {
  cli.option("--config", config_file_,
             "configuration file (default: $NECROCODE_CONFIG, else "
             "~/.config/necrocode/config.yaml)");
  declare_setting(cli, "--data", {"data_dir"},
                  "folder for the services' and runs' files (default: $NECROCODE_DATA, else "
                  "~/.local/share/necrocode)");
  declare_log_level(cli);
}

void CommonOptions::declare_log_level(Cli& cli) {
  declare_setting(cli, "--log-level", {"log_level"},
                  "debug, info, warn, error or off (default: warn)");
}

void CommonOptions::declare_services(Cli& cli, const std::set<Service>& services) {
  struct Address {
    Service service;
    const char* flag;
    const char* key;
    const char* help;
  };
  constexpr Address kAddresses[] = {
      {Service::kRegistry, "--registry", "task_registry_url",
       "Task Registry (default: $TASK_REGISTRY_URL)"},
      {Service::kPool, "--pool", "repo_pool_url", "Repo Pool Manager (default: $REPO_POOL_URL)"},
      {Service::kArtifacts, "--artifacts", "artifact_store_url",
       "Artifact Store (default: $ARTIFACT_STORE_URL)"}};
  std::vector<std::string> keys;
  for (const Address& address : kAddresses) {
    if (services.contains(address.service)) keys.emplace_back(address.key);
  }
  declare_setting(cli, "--url", keys, "address of the services, as `serve` prints it");
  for (const Address& address : kAddresses) {
    if (services.contains(address.service))
      declare_setting(cli, address.flag, {address.key}, address.help);
  }
}

void CommonOptions::declare_llm(Cli& cli) {
  declare_setting(cli, "--llm-endpoint", {"llm.endpoint"},
                  "base URL of the model service (default: $LLM_ENDPOINT, else "
                  "https://api.openai.com/v1; of anthropic https://api.anthropic.com/v1)");
  declare_setting(cli, "--llm-provider", {"llm.provider"},
                  "openai-chat, openai-responses or anthropic (default: $LLM_PROVIDER, else "
                  "openai-chat)");
  declare_setting(cli, "--llm-model", {"llm.model"},
                  "model name (default: $LLM_MODEL, else gpt-4)");
  declare_setting(cli, "--llm-timeout", {"llm.timeout_seconds"},
                  "seconds for one model call (default: 120)");
}

void CommonOptions::declare_tests(Cli& cli) {
  declare_setting(cli, "--retry-tests", {"test_retry_count"},
                  "further attempts of a failed test command, 0 to 5; one that then passes is "
                  "reported as flaky (default: 0)");
}

void CommonOptions::declare_json(Cli& cli, const std::string& help) {
  cli.flag("--json", json, help);
}

void CommonOptions::declare_setting(Cli& cli, const std::string& flag,
                                    std::vector<std::string> keys, const std::string& help) {
  Given& given = given_.emplace_back(Given{flag, std::move(keys), {}});
  cli.option(flag, given.value, help);
}

Cli& CommonOptions::service_command(Cli& parent, const std::string& name, const std::string& help,
                                    const std::set<Service>& services,
                                    std::function<int()> action) {
  Cli& command = parent.command(name, help);
  declare(command);
  declare_services(command, services);
  declare_json(command);
  return command.action(std::move(action));
}

std::vector<config::Flag> CommonOptions::flags() const {
  std::vector<config::Flag> flags;
  for (const Given& given : given_) {
    if (given.value.empty()) continue;
    for (const std::string& key : given.keys) flags.push_back({given.flag, key, given.value});
  }
  return flags;
}

config::LoadedConfig CommonOptions::load() const {
  return config::load(config_file_, flags());
}

StopOnSignal::StopOnSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  struct sigaction hangup = {};
  // A blocked signal reaches the signalfd even when it is ignored: so nohup has to be looked for.
  if (::sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN)
    sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signals_ = FileDescriptor(::signalfd(-1, &signals, SFD_CLOEXEC));
  ended_ = FileDescriptor(::eventfd(0, EFD_CLOEXEC));
  if (!signals_ || !ended_) throw_errno("cannot watch signals");
  thread_ = std::jthread([this] { watch(); });
}

// `timeout` and the like signal us and our group: twice, for one wish.
constexpr std::chrono::seconds kSameWish{1};

void StopOnSignal::watch() {
  std::optional<SteadyTime> asked;
  while (true) {
    pollfd waiting[] = {{signals_.get(), POLLIN, 0}, {ended_.get(), POLLIN, 0}};
    if (::poll(waiting, 2, -1) < 0) continue;
    if (waiting[1].revents != 0) return;
    signalfd_siginfo signal{};
    if (::read(signals_.get(), &signal, sizeof signal) != sizeof signal) continue;
    const SteadyTime now = real_clock().steady_now();
    if (signal.ssi_signo != SIGHUP) {
      if (asked && now - *asked >= kSameWish) ::_exit(128 + static_cast<int>(signal.ssi_signo));
      if (!asked) asked = now;
    }
    source_.request_stop();
  }
}

StopOnSignal::~StopOnSignal() {
  const std::uint64_t one = 1;
  // An eventfd takes this write as long as it is open; it is ours.
  NECROCODE_CHECK(::write(ended_.get(), &one, sizeof one) == sizeof one);
}

void allow_many_files() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
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

namespace {

net::HttpClientOptions http_options(const config::Config& config) {
  net::HttpClientOptions options;
  options.ca_file = config.ca_file.string();
  return options;
}

}  // namespace

Runtime::Runtime(Given given)
    : loaded_(std::move(given.first)),
      credentials_(std::move(given.second)),
      masker_(credentials_.masker()),
      http_(net::shared_http_client()),
      governor_(std::make_shared<llm::RateGovernor>()),
      capabilities_(
          std::make_shared<llm::CapabilityTable>(config().data_dir / "llm-capabilities.json")) {
  if (!config().ca_file.empty()) http_ = net::make_curl_http_client(http_options(config()));
  const bool json = config().log_format == "json" ||
                    (config().log_format == "auto" && ::isatty(STDERR_FILENO) != 1);
  has_credentials_ = credentials_.llm_fallback_keys.size() == config().llm_fallbacks.size();
  log::configure(log::parse_level(config().log_level).value_or(log::Level::kWarn),
                 json ? log::Format::kJson : log::Format::kText);
  log::set_masker(masker_);
  set_output_masker(masker_);
}

Runtime::Runtime(const CommonOptions& options)
    : Runtime([&options] {
        config::LoadedConfig loaded = options.load();
        config::Credentials credentials = config::take_credentials(loaded.config);
        return Given(std::move(loaded), std::move(credentials));
      }()) {}

Runtime::Runtime(config::LoadedConfig loaded)
    : Runtime([&loaded] {
        config::drop_credentials(loaded.config);
        return Given(std::move(loaded), config::Credentials());
      }()) {}

void Runtime::expect_runs(int count) {
  net::HttpClientOptions options = http_options(config());
  const std::size_t wanted = 2 * static_cast<std::size_t>(count) + 16;
  if (wanted <= options.connections_per_host) return;
  options.connections_per_host = wanted;
  http_ = net::make_curl_http_client(std::move(options));
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
  options.http = http_;
  options.on_call = on_call_;
  return options;
}

std::string Runtime::required(const std::string& url, const char* what, const char* flag) const {
  if (!url.empty()) return url;
  throw ConfigError(std::string("no ") + what + " is configured; give " + flag +
                    " or --url, as `necrocode serve` prints it");
}

TaskRegistryClient Runtime::registry(std::shared_ptr<net::CallSpool> spool) const {
  net::ServiceOptions options =
      service(required(config().task_registry_url, "Task Registry", "--registry"),
              credentials_.registry_token);
  options.spool = std::move(spool);
  return TaskRegistryClient(std::move(options));
}

std::shared_ptr<outbox::Outbox> Runtime::registry_outbox() const {
  auto box = std::make_shared<outbox::Outbox>(config().data_dir / "outbox");
  box->deliver_through(std::make_shared<net::ServiceCaller>(
      "task-registry", service(config().task_registry_url, credentials_.registry_token)));
  return box;
}

RepoPoolClient Runtime::pool() const {
  return RepoPoolClient(service(required(config().repo_pool_url, "Repo Pool Manager", "--pool"),
                                credentials_.pool_token));
}

ArtifactStoreClient Runtime::artifacts() const {
  return ArtifactStoreClient(
      service(required(config().artifact_store_url, "Artifact Store", "--artifacts"),
              credentials_.artifact_token));
}

LLMConfig Runtime::llm_config() const {
  LLMConfig llm;
  llm.api_key = credentials_.llm_api_key.copy();
  llm.model = config().llm_model;
  llm.endpoint = llm_endpoint();
  llm.provider = config().llm_provider;
  llm.timeout_seconds = config().llm_timeout_seconds;
  llm.connect_timeout_seconds = config().llm_connect_timeout_seconds;
  llm.idle_timeout_seconds = config().llm_idle_timeout_seconds;
  llm.progress_timeout_seconds = config().llm_progress_timeout_seconds;
  llm.max_tokens = config().llm_max_tokens;
  llm.temperature = config().llm_temperature;
  llm.requests_per_minute = config().llm_requests_per_minute;
  llm.tokens_per_minute = config().llm_tokens_per_minute;
  llm.min_request_interval = config().llm_min_request_interval;
  llm.retry = retries(config().llm_retry_count);
  return llm;
}

// What it leaves out is as of the first; but a key goes to no other service than its own.
LLMConfig Runtime::fallback_config(const Json& fallback, const Secret& key) const {
  LLMConfig llm = llm_config();
  const std::string first = llm.endpoint;
  llm.model = fallback["model"].string_or(llm.model);
  llm.provider = fallback["provider"].string_or(llm.provider);
  const bool same_vendor = (llm.provider == "anthropic") == (config().llm_provider == "anthropic");
  llm.endpoint =
      fallback["endpoint"].string_or(same_vendor ? first : default_endpoint(llm.provider));
  llm.timeout_seconds = fallback["timeout_seconds"].as_double().value_or(llm.timeout_seconds);
  llm.temperature = fallback["temperature"].as_double().value_or(llm.temperature);
  if (const auto tokens = fallback["max_tokens"].as_int()) {
    llm.max_tokens = static_cast<int>(*tokens);
  }
  if (!key.empty() || llm.endpoint != first) llm.api_key = key.copy();
  return llm;
}

LLMClient Runtime::llm() const {
  LLMConfig llm = llm_config();
  const Json::Array fallbacks = config().llm_fallbacks.items();
  for (std::size_t i = 0; i < fallbacks.size(); ++i) {
    const std::vector<Secret>& keys = credentials_.llm_fallback_keys;
    const Secret key = i < keys.size() ? keys[i].copy() : Secret();
    const std::string variable = fallbacks[i]["api_key_env_var"].string_or("");
    if (!variable.empty() && key.empty() && has_credentials_) {
      throw ConfigError("$" + variable + ", which llm.fallbacks names as a key, is not set");
    }
    llm.fallbacks.push_back(fallback_config(fallbacks[i], key));
  }
  llm.http = http_;
  llm.governor = governor_;
  llm.capabilities = capabilities_;
  llm.prices = std::make_shared<const llm::PriceTable>(config().prices);
  llm.on_call = on_model_call_;
  return LLMClient(std::move(llm));
}

llm::SpendingLimits Runtime::spending_limits() const {
  llm::SpendingLimits limits;
  if (config().budgets_run_usd > 0) limits.usd = config().budgets_run_usd;
  limits.tokens = config().budgets_run_tokens;
  return limits;
}

runner::RunOptions Runtime::run_options() const {
  runner::RunOptions options;
  options.data_dir = config().data_dir;
  options.max_repairs = config().max_repairs;
  options.git_retries = config().git_retry_count;
  options.test_retries = config().test_retry_count;
  options.tests_total_timeout = std::chrono::seconds{config().tests_total_timeout_seconds};
  options.spending = spending_limits();
  options.playbooks = playbooks();
  options.commit.title = config().commit_title;
  for (const Json& trailer : config().commit_trailers.items()) {
    options.commit.trailers.push_back(trailer.string_or(""));
  }
  return options;
}

runner::TaskDefaults Runtime::task_defaults() const {
  runner::TaskDefaults defaults;
  defaults.timeout = std::chrono::seconds{config().default_timeout_seconds};
  defaults.test_timeout = std::chrono::seconds{config().test_timeout_seconds};
  return defaults;
}

process::ResourceLimits Runtime::resource_limits() const {
  process::ResourceLimits limits = process::default_limits();
  if (config().max_memory_mb > 0) {
    limits.memory_bytes = static_cast<std::uint64_t>(config().max_memory_mb) * limits::kMiB;
  }
  if (config().max_processes > 0) {
    limits.processes = static_cast<std::uint64_t>(config().max_processes);
  }
  limits.cpu_percent = config().max_cpu_percent;
  return limits;
}

process::ResourceLimits Runtime::agent_limits() const {
  process::ResourceLimits limits = process::default_limits();
  if (config().limits_memory_mb > 0) {
    limits.memory_bytes = static_cast<std::uint64_t>(config().limits_memory_mb) * limits::kMiB;
  }
  if (config().limits_processes > 0) {
    limits.processes = static_cast<std::uint64_t>(config().limits_processes);
  }
  return limits;
}

// What llm.* says of a provider counts where providers: says nothing else of it.
void Runtime::use_llm_settings(std::vector<llm::ModelProvider>& providers) const {
  const std::string name = config().llm_provider == "anthropic" ? "anthropic" : "openai";
  const std::string& origin = loaded_.origin.at("llm.endpoint");
  const bool names_endpoint = origin != "default";
  for (llm::ModelProvider& provider : providers) {
    if (provider.name != name) continue;
    const bool by_default = provider.endpoint == config::Config{}.providers[name]["base_url"];
    if (names_endpoint && (by_default || origin.starts_with("--"))) {
      provider.endpoint = config().llm_endpoint;
      provider.api_key = credentials_.llm_api_key.copy();
    } else if (provider.api_key.empty() && by_default) {
      provider.api_key = credentials_.llm_api_key.copy();
    }
  }
}

std::vector<llm::ModelProvider> Runtime::providers() const {
  std::vector<llm::ModelProvider> providers;
  for (const auto& [name, settings] : config().providers.members()) {
    const auto key = credentials_.provider_keys.find(name);
    providers.push_back({name, settings["base_url"].string_or(""),
                         key == credentials_.provider_keys.end() ? Secret() : key->second.copy()});
  }
  use_llm_settings(providers);
  return providers;
}

llm::MeteringProxyOptions Runtime::metering_proxy_options() const {
  const auto milliseconds = [](double seconds) {
    return std::chrono::milliseconds{static_cast<std::int64_t>(seconds * 1000)};
  };
  llm::MeteringProxyOptions options;
  options.providers = providers();
  options.prices = std::make_shared<const llm::PriceTable>(config().prices);
  options.shared_state = config().data_dir / "spending.db";
  options.rates.requests_per_minute = config().llm_requests_per_minute;
  options.rates.tokens_per_minute = config().llm_tokens_per_minute;
  options.first_byte_timeout = milliseconds(config().llm_timeout_seconds);
  options.idle_timeout =
      milliseconds(config().llm_idle_timeout_seconds > 0 ? config().llm_idle_timeout_seconds
                                                         : config().llm_timeout_seconds);
  options.masker = masker_;
  options.http = http_;
  options.governor = governor_;
  return options;
}

runner::ExecutorChoices Runtime::executor_choices() const {
  return {config().executor, config().executors_by_spec, config().executors_by_skill,
          config().agent};
}

runner::PlaybookPlaces Runtime::playbooks() const {
  runner::PlaybookPlaces places;
  places.directory = config().playbooks_directory;
  places.fallback = config().default_playbook_path;
  for (const Json& repository : config().playbooks_trusted_repositories.items()) {
    places.trusted_repositories.push_back(repository.string_or(""));
  }
  return places;
}

// The default is OpenAI's; another vendor's dialect is spoken to that vendor.
std::string Runtime::llm_endpoint() const {
  const bool by_default = loaded_.origin.at("llm.endpoint") == "default";
  return by_default ? default_endpoint(config().llm_provider) : config().llm_endpoint;
}

std::string Runtime::llm_host() const {
  const auto url = net::Url::parse(llm_endpoint());
  return url && is_plain_name(url->host) ? url->host : std::string();  // an IPv6 address is none
}

bool Runtime::has_model() const {
  const std::string endpoint = llm_endpoint();
  return !credentials_.llm_api_key.empty() ||
         !(endpoint.starts_with("https://api.openai.com") || endpoint == kAnthropicEndpoint);
}

void Runtime::require_model_key(const config::ExecutorChain& chain) const {
  if (std::find(chain.begin(), chain.end(), "llm") != chain.end()) require_model_key();
}

void Runtime::require_model_key() const {
  if (has_model()) return;
  const char* variable = config().llm_provider == "anthropic" ? "ANTHROPIC" : "OPENAI";
  throw ConfigError("no key is set for " + llm_endpoint() + ": put it into $" + variable +
                    "_API_KEY or $" + config().llm_api_key_env_var +
                    ", or name a service that needs none with --llm-endpoint");
}

git::GitOptions Runtime::git_options() const {
  git::GitOptions options;
  options.author_name = config().commit_author_name;
  options.author_email = config().commit_author_email;
  options.token = credentials_.git_token.copy();
  return options;
}

namespace {

int test_commands_at_once(const config::Config& config) {
  constexpr int kPerProcessor = 2;
  if (config.max_test_commands > 0) return config.max_test_commands;
  return kPerProcessor * static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

}  // namespace

RunnerParts::RunnerParts(Runtime& runtime, process::Supervisor& the_supervisor, bool unsandboxed)
    : runtime_(runtime),
      sandbox_(unsandboxed ? process::make_unsandboxed(the_supervisor, runtime.resource_limits())
                           : process::make_sandbox(the_supervisor, runtime.resource_limits())),
      bounded_sandbox_(*sandbox_, test_commands_at_once(runtime.config())),
      git_(the_supervisor, runtime.git_options()),
      llm_(runtime.llm()),
      model_calls_(runtime.config().llm_max_in_flight),
      adapters_(runtime.config().agents),
      agents_{*sandbox_, runtime.masker(),
              [this](llm::MeteredRunOptions options) { return open_metered(std::move(options)); },
              runtime.agent_limits(),
              runtime.config().budgets_daily_usd > 0
                  ? std::optional<double>(runtime.config().budgets_daily_usd)
                  : std::nullopt},
      executors_(runtime.executor_choices(), makers()) {
  const config::Config& config = runtime.config();
  if (!config.task_registry_url.empty())
    registry_.emplace(runtime.registry(runtime.registry_outbox()));
  if (!config.repo_pool_url.empty()) pool_.emplace(runtime.pool());
  if (!config.artifact_store_url.empty()) artifacts_.emplace(runtime.artifacts());
  if (registry_) task_leases_.emplace(runner::renew_tasks(*registry_));
  if (pool_) slot_leases_.emplace(runner::renew_slots(*pool_));
  if (artifacts_) logs_.emplace(*artifacts_);
}

std::map<std::string, runner::MakeExecutor> RunnerParts::makers() {
  std::map<std::string, runner::MakeExecutor> makers;
  makers["llm"] = [this](const runner::ExecutorScope&) {
    return std::make_unique<runner::BoundedExecutor>(
        std::make_unique<runner::LlmExecutor>(llm_, runtime_.masker()), model_calls_);
  };
  for (const auto& [name, adapter] : adapters_.all()) {
    makers["command:" + name] = [this, &known = adapter](const runner::ExecutorScope& scope) {
      return std::make_unique<runner::CommandExecutor>(known, agents_, scope);
    };
  }
  return makers;
}

std::unique_ptr<llm::MeteredRun> RunnerParts::open_metered(llm::MeteredRunOptions options) {
  {
    const std::lock_guard lock(proxy_mutex_);
    if (!proxy_) {
      auto proxy = std::make_unique<llm::MeteringProxy>(runtime_.metering_proxy_options());
      proxy->start();
      proxy_ = std::move(proxy);
    }
  }
  return proxy_->open(std::move(options));
}

runner::RunnerServices RunnerParts::services() {
  return {git_,
          bounded_sandbox_,
          executors_,
          runtime_.masker(),
          registry_ ? &*registry_ : nullptr,
          pool_ ? &*pool_ : nullptr,
          artifacts_ ? &*artifacts_ : nullptr,
          task_leases_ ? &*task_leases_ : nullptr,
          slot_leases_ ? &*slot_leases_ : nullptr,
          logs_ ? &*logs_ : nullptr};
}

process::Supervisor& supervisor() {
  static process::Supervisor instance;
  return instance;
}

}  // namespace necrocode::app
