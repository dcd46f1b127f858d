// Config: every setting, from the one YAML file, then the environment, then flags (SPEC section
// 12). One table in settings.cpp names each setting once: its key, its variable, its rule, its
// words. Credentials are not settings: they are read by credentials.hpp and are never shown.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/json.hpp"
#include "necrocode/config/executor_chain.hpp"

namespace necrocode::config {

struct Config {
  std::string task_registry_url;   ///< empty: no registry
  std::string repo_pool_url;       ///< empty: no pool
  std::string artifact_store_url;  ///< empty: artifacts go under the run's folder
  std::filesystem::path data_dir;  ///< $XDG_DATA_HOME/necrocode
  std::filesystem::path ca_file;   ///< empty: the system's authorities

  std::string execution_mode = "local-process";
  int default_timeout_seconds = 1800;
  int test_timeout_seconds = 600;
  int tests_total_timeout_seconds = 0;  ///< 0: no more than the task's time
  int test_retry_count = 0;
  int max_repairs = 2;
  int drain_seconds = 30;

  std::string llm_model = "gpt-4";
  std::string llm_endpoint = "https://api.openai.com/v1";
  std::string llm_provider = "openai-chat";
  double llm_timeout_seconds = 120;
  double llm_connect_timeout_seconds = 10;
  double llm_idle_timeout_seconds = 0;      ///< between two bytes; 0: as llm_timeout_seconds
  double llm_progress_timeout_seconds = 0;  ///< between two pieces of content; 0: the same
  int llm_max_tokens = 4000;
  double llm_temperature = 0.2;
  double llm_requests_per_minute = 0;     ///< 0: no limit of our own
  double llm_tokens_per_minute = 0;       ///< the same
  double llm_min_request_interval = 0.1;  ///< seconds
  /// Whom to ask next: maps, checked, each with model, and as far as they differ from llm.*:
  /// endpoint, provider, api_key_env_var, timeout_seconds, max_tokens, temperature.
  Json llm_fallbacks = Json::array();
  /// US dollars per million tokens: model to {input, output, cached_input, cache_write}, checked.
  Json prices = Json::object();
  double budgets_run_usd = 0;    ///< 0: no cap
  int budgets_run_tokens = 0;    ///< the same
  double budgets_daily_usd = 0;  ///< of all agent programs' runs of this host, a day; the same

  // How changes are made, and the agent programs that can be asked to.
  ExecutorChain executor = {"llm"};
  std::map<std::string, ExecutorChain> executors_by_spec, executors_by_skill;
  std::string agent;  ///< what "command" alone means
  /// Name to what agent/adapter.hpp reads, unchecked but for that.
  Json agents = Json::object();
  /// The services behind the metering proxy: name to {base_url, api_key_env}, checked.
  Json providers =
      Json::object({{"openai", Json::object({{"base_url", "https://api.openai.com/v1"},
                                             {"api_key_env", "OPENAI_API_KEY"}})},
                    {"anthropic", Json::object({{"base_url", "https://api.anthropic.com/v1"},
                                                {"api_key_env", "ANTHROPIC_API_KEY"}})}});
  // Of each agent program, with all that it starts. 0: see process::default_limits().
  int limits_memory_mb = 0;
  int limits_processes = 0;

  int git_retry_count = 3;
  int network_retry_count = 3;
  int llm_retry_count = 3;

  std::string git_token_env_var = "GIT_TOKEN";
  std::string llm_api_key_env_var = "LLM_API_KEY";

  std::string log_level = "warn";
  std::string log_format = "auto";  ///< json, text, auto

  int registry_keep_tasksets_days = 0;  ///< finished ones; 0: for ever
  int registry_keep_events_days = 0;    ///< the same
  /// required_skill to the most tasks that run at once with it, checked.
  Json registry_max_running_by_skill = Json::object();

  bool pools_auto_create = true;
  int pools_num_slots = 2;
  int pools_max_slots = 8;

  int max_test_commands = 0;     ///< side by side in a process; 0: twice its processors
  int llm_max_in_flight = 0;     ///< model calls of a process at once; 0: no bound
  int min_free_memory_mb = 256;  ///< below it a worker claims nothing

  std::string commit_author_name = "necrocode";
  std::string commit_author_email = "necrocode@localhost";
  std::string commit_title = "feat(task-{number}): {title}";  ///< a template, checked
  Json commit_trailers = Json::array();                       ///< the same, "Key: value" each

  std::string default_playbook_path;  ///< of a task that names none
  std::string playbooks_directory;    ///< where the playbooks that tasks name are kept
  /// URLs or globs of repositories whose own playbooks are used.
  Json playbooks_trusted_repositories = Json::array();

  // Of each test command, with all that it starts. 0: not set, see process::default_limits().
  int max_memory_mb = 0;
  int max_cpu_percent = 0;
  int max_processes = 0;
};

/// A setting as the command line gave it.
struct Flag {
  std::string name;  ///< "--llm-timeout": its origin, and how it is named when it is wrong
  std::string key;
  std::string value;
};

/// Where each value came from: "default", "file PATH:LINE", "environment NAME", "--flag".
struct LoadedConfig {
  Config config;
  std::map<std::string, std::string> origin;  ///< by key
  std::filesystem::path file;                 ///< empty when there was none
};

/// One setting as `config show` and `config check` tell it.
struct SettingInfo {
  std::string key;
  std::string variable;
  std::string description;
  Json value;  ///< of its type
};

/// `file`: from --config; empty: $NECROCODE_CONFIG, else ~/.config/necrocode/config.yaml if it
/// exists. Of `flags` the last one of a key counts. Throws ConfigError naming every unknown key
/// (with the nearest known one) and every bad value, with its line, variable or flag.
LoadedConfig load(const std::filesystem::path& file, const std::vector<Flag>& flags);
/// The defaults and `flags` alone: neither file nor environment.
LoadedConfig load_flags(const std::vector<Flag>& flags);

std::vector<SettingInfo> describe(const Config& config);

}  // namespace necrocode::config
