// Credentials: read once at start from the environment or from files with safe modes, then taken
// out of the environment, so that no child and no crash report finds them there.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "necrocode/base/masking.hpp"
#include "necrocode/base/secret.hpp"
#include "necrocode/config/config.hpp"

namespace necrocode::config {

struct Credentials {
  /// $LLM_API_KEY (or the configured name), else $OPENAI_API_KEY; for the provider anthropic
  /// $ANTHROPIC_API_KEY.
  Secret llm_api_key;
  Secret git_token;       ///< $GIT_TOKEN (or the configured name)
  Secret registry_token;  ///< $TASK_REGISTRY_API_KEY
  Secret pool_token;      ///< $REPO_POOL_API_KEY
  Secret artifact_token;  ///< $ARTIFACT_STORE_API_KEY
  /// Of each of Config::llm_fallbacks, in their order; empty where it names no
  /// variable, or one that is not there.
  std::vector<Secret> llm_fallback_keys;
  /// Of each of Config::providers, by its name; empty where its variable is not there.
  std::map<std::string, Secret> provider_keys;

  std::shared_ptr<const Masker> masker() const;
};

/// For each NAME: $NAME, else the file that $NAME_FILE names. Throws SecurityError for a value that
/// is empty, shorter than 8 bytes or over several lines, and for a file that others may read;
/// ConfigError for a file that cannot be read.
Credentials take_credentials(const Config& config);
/// Takes what take_credentials(config) would read out of the environment, and keeps nothing of it.
void drop_credentials(const Config& config = {});

}  // namespace necrocode::config
