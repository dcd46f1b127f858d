#include "necrocode/config/credentials.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::config {
namespace {

constexpr std::size_t kCredentialBytes = 16 * 1024;

void check_credential(std::string_view name, std::string_view value) {
  const auto refuse = [&](std::string_view why) {
    throw SecurityError("the credential in " + std::string(name) + " " + std::string(why));
  };
  if (value.empty()) refuse("is empty");
  if (value.find_first_of(std::string_view("\r\n\0", 3)) != std::string_view::npos) {
    refuse("has more than one line");
  }
  if (value.size() < 8) refuse("is shorter than 8 characters, too short to be masked safely");
}

constexpr const char* kOpenAiKey = "OPENAI_API_KEY";
constexpr const char* kAnthropicKey = "ANTHROPIC_API_KEY";
constexpr const char* kRegistryToken = "TASK_REGISTRY_API_KEY";
constexpr const char* kPoolToken = "REPO_POOL_API_KEY";
constexpr const char* kArtifactToken = "ARTIFACT_STORE_API_KEY";

void drop_variable(const std::string& name) {
  char* value = std::getenv(name.c_str());
  if (!value) return;
  explicit_bzero(value, std::strlen(value));
  ::unsetenv(name.c_str());
}

// Reads and wipes the variable, in the process's own environment block too. One that is set to
// nothing is a mistake (a secret that was not mounted, say), not a wish to go without.
Secret take_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  if (!value) return {};
  Secret secret{std::string_view(value)};
  drop_variable(name);
  check_credential("$" + name, secret.reveal());
  return secret;
}

Secret take_file(const std::string& variable) {
  const char* path = std::getenv(variable.c_str());
  if (!path) return {};
  const auto unreadable = [&](const std::string& why) {
    throw ConfigError("the credential file " + std::string(path) + " of $" + variable +
                      " cannot be read: " + why);
  };
  if (!*path) throw SecurityError("$" + variable + " is empty; it must name a credential file");
  struct stat info = {};
  if (::stat(path, &info) != 0) unreadable(std::strerror(errno));
  if ((info.st_mode & 0077) != 0) {
    throw SecurityError("the credential file " + std::string(path) + " of $" + variable +
                        " is open to others; chmod 600 it");
  }
  std::string content;
  try {
    content = read_file(path, kCredentialBytes);
  } catch (const StorageError& error) {
    unreadable(error.summary());
  }
  Secret secret(trim(content));
  wipe(content);
  check_credential("the file of $" + variable, secret.reveal());
  return secret;
}

/// What has been taken is no longer in the environment: whoever names it again gets a copy.
class Taken {
 public:
  const Secret& of(const std::string& name) {
    const auto [place, is_new] = taken_.try_emplace(name);
    if (is_new) {
      place->second = take_variable(name);
      if (place->second.empty()) place->second = take_file(name + "_FILE");
    }
    return place->second;
  }

 private:
  std::map<std::string, Secret> taken_;
};

std::string fallback_variable(const Json& fallback) {
  return fallback["api_key_env_var"].string_or("");
}

}  // namespace

Credentials take_credentials(const Config& config) {
  Credentials credentials;
  Taken taken;
  credentials.llm_api_key = taken.of(config.llm_api_key_env_var).copy();
  // Taken in any case, so that neither stays in the environment; a vendor's key is for its dialect.
  const Secret& openai_key = taken.of(kOpenAiKey);
  const Secret& anthropic_key = taken.of(kAnthropicKey);
  if (credentials.llm_api_key.empty()) {
    credentials.llm_api_key =
        (config.llm_provider == "anthropic" ? anthropic_key : openai_key).copy();
  }
  credentials.git_token = taken.of(config.git_token_env_var).copy();
  credentials.registry_token = taken.of(kRegistryToken).copy();
  credentials.pool_token = taken.of(kPoolToken).copy();
  credentials.artifact_token = taken.of(kArtifactToken).copy();
  for (const Json& fallback : config.llm_fallbacks.items()) {
    const std::string name = fallback_variable(fallback);
    credentials.llm_fallback_keys.push_back(name.empty() ? Secret() : taken.of(name).copy());
  }
  for (const auto& [name, provider] : config.providers.members()) {
    const std::string variable = provider["api_key_env"].string_or("");
    credentials.provider_keys[name] = variable.empty() ? Secret() : taken.of(variable).copy();
  }
  return credentials;
}

void drop_credentials(const Config& config) {
  for (const std::string& name : {config.llm_api_key_env_var, config.git_token_env_var})
    drop_variable(name);
  for (const char* name : {kOpenAiKey, kAnthropicKey, kRegistryToken, kPoolToken, kArtifactToken})
    drop_variable(name);
  for (const Json& fallback : config.llm_fallbacks.items())
    drop_variable(fallback_variable(fallback));
  for (const auto& [name, provider] : config.providers.members())
    drop_variable(provider["api_key_env"].string_or(""));
}

std::shared_ptr<const Masker> Credentials::masker() const {
  std::vector<const Secret*> secrets;
  for (const Secret* secret :
       {&llm_api_key, &git_token, &registry_token, &pool_token, &artifact_token}) {
    if (!secret->empty()) secrets.push_back(secret);
  }
  for (const Secret& secret : llm_fallback_keys) {
    if (!secret.empty()) secrets.push_back(&secret);
  }
  for (const auto& [name, secret] : provider_keys) {
    if (!secret.empty()) secrets.push_back(&secret);
  }
  return std::make_shared<const Masker>(secrets);
}

}  // namespace necrocode::config
