#include "necrocode/llm/capabilities.hpp"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/file.hpp"
#include "necrocode/base/json_fields.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"
#include "necrocode/observe/log.hpp"

namespace necrocode::llm {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr auto kKept = 24h * 7;
constexpr auto kClockSkew = 1h;  // of another machine that wrote the file
constexpr std::size_t kEntries = 1000;
constexpr std::size_t kKeyBytes = 2 * limits::kKiB;  // an endpoint and a model's name
constexpr std::size_t kFileBytes = 4 * limits::kMiB;
// Whoever has the lock reads and writes a small file; whoever was stopped meanwhile is not waited
// for.
constexpr int kLockAttempts = 100;
constexpr auto kLockPause = 10ms;

constexpr std::array<std::string_view, 3> kFormats = {"json_schema", "json_object", "text"};

/// The rest is true or false; `false` is what a 400 has taught.
using Field = bool Capabilities::*;
struct Ability {
  const char* name;
  Field field;
};
constexpr Ability kAbilities[] = {
    {"max_tokens", &Capabilities::max_tokens},
    {"temperature", &Capabilities::temperature},
    {"stream", &Capabilities::stream},
    {"stream_options", &Capabilities::stream_options},
};

Json to_json(const Capabilities& capabilities, SystemTime learned_at) {
  Json json = Json::object({{"learned_at", to_rfc3339(learned_at)},
                            {"format", kFormats[static_cast<std::size_t>(capabilities.format)]}});
  for (const Ability& ability : kAbilities) json.set(ability.name, capabilities.*ability.field);
  return json;
}

Capabilities read_capabilities(JsonFields& fields) {
  Capabilities capabilities;
  const std::string name =
      fields.required_choice("format", {kFormats[0], kFormats[1], kFormats[2]});
  const auto* const format = std::find(kFormats.begin(), kFormats.end(), name);
  if (format != kFormats.end())
    capabilities.format = static_cast<Format>(format - kFormats.begin());
  // One that an older version did not know is not missing.
  for (const Ability& ability : kAbilities)
    capabilities.*ability.field = fields.boolean(ability.name).value_or(true);
  return capabilities;
}

/// Waits for whoever has it; nothing when that takes too long.
FileDescriptor lock_file(const fs::path& path, const Clock& clock) {
  FileDescriptor lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock) throw_errno("cannot open", path.string());
  for (int attempt = 0; ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0; ++attempt) {
    if (errno != EWOULDBLOCK && errno != EINTR) throw_errno("cannot lock", path.string());
    if (attempt == kLockAttempts) throw StorageError("another process keeps " + path.string());
    clock.sleep_for(kLockPause, {});
  }
  return lock;
}

}  // namespace

std::string_view to_string(Format format) {
  return kFormats[static_cast<std::size_t>(format)];
}

Capabilities common(const Capabilities& a, const Capabilities& b) {
  Capabilities both;
  both.format = std::max(a.format, b.format);
  for (const Ability& ability : kAbilities)
    both.*ability.field = a.*ability.field && b.*ability.field;
  return both;
}

CapabilityTable::CapabilityTable(fs::path file, const Clock& clock)
    : file_(std::move(file)), clock_(&clock) {
  entries_ = read();
}

Capabilities CapabilityTable::of(const std::string& key) const {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  return found != entries_.end() && holds(found->second) ? found->second.capabilities
                                                         : Capabilities();
}

Capabilities CapabilityTable::learn(const std::string& key, const Capabilities& learned) {
  Capabilities both = learned;
  {
    const std::lock_guard lock(mutex_);
    const auto known = entries_.find(key);
    const bool holds_still = known != entries_.end() && holds(known->second);
    if (holds_still) both = common(known->second.capabilities, learned);
    if (both == (holds_still ? known->second.capabilities : Capabilities())) return both;
    entries_[key] = {both, clock_->system_now()};
    forget_oldest(entries_);
  }
  if (!file_.empty()) write();
  return both;
}

bool CapabilityTable::holds(const Entry& entry) const {
  const SystemTime now = clock_->system_now();
  return entry.learned_at > now - kKept && entry.learned_at < now + kClockSkew;
}

void CapabilityTable::forget_oldest(Entries& entries) {
  while (entries.size() > kEntries) {
    entries.erase(std::min_element(
        entries.begin(), entries.end(),
        [](const auto& a, const auto& b) { return a.second.learned_at < b.second.learned_at; }));
  }
}

/// Of what both have, all that either was refused counts.
void CapabilityTable::merge(Entries& into, const Entries& from) {
  for (const auto& [key, entry] : from) {
    const auto [place, is_new] = into.emplace(key, entry);
    if (is_new) continue;
    place->second.capabilities = common(place->second.capabilities, entry.capabilities);
    place->second.learned_at = std::max(place->second.learned_at, entry.learned_at);
  }
}

/// What the file holds and still counts. Never throws for what is in it.
CapabilityTable::Entries CapabilityTable::read() {
  Entries entries;
  try {
    std::error_code error;
    const fs::file_status status = fs::symlink_status(file_, error);
    if (status.type() == fs::file_type::not_found) return entries;
    if (!fs::is_regular_file(status)) throw StorageError(file_.string() + " is not a file");
    const Json content = Json::parse(read_file(file_, kFileBytes), file_.string());
    const Json& endpoints = content["endpoints"];
    JsonFields table(endpoints, "/endpoints");
    for (const auto& [key, value] : endpoints.members()) {
      JsonFields fields(value, table.pointer(key));
      fields.require("learned_at");
      const auto learned_at = fields.time("learned_at");
      const Entry entry{read_capabilities(fields), learned_at.value_or(SystemTime())};
      if (key.size() <= kKeyBytes && holds(entry)) entries[key] = entry;
      table.absorb(fields);
    }
    table.finish("content of " + file_.string());
  } catch (const RunnerError& error) {
    warn(error.what());
    entries.clear();
  }
  forget_oldest(entries);
  return entries;
}

void CapabilityTable::write() {
  try {
    std::error_code error;
    if (file_.has_parent_path()) fs::create_directories(file_.parent_path(), error);
    const FileDescriptor lock = lock_file(file_.string() + ".lock", *clock_);
    const Entries others = read();
    Json endpoints = Json::object();
    {
      const std::lock_guard guard(mutex_);
      merge(entries_, others);
      std::erase_if(entries_, [this](const auto& entry) { return !holds(entry.second); });
      forget_oldest(entries_);
      for (const auto& [key, entry] : entries_) {
        if (key.size() > kKeyBytes || !is_utf8(key)) continue;  // in memory only
        endpoints.members().emplace_back(key, to_json(entry.capabilities, entry.learned_at));
      }
    }
    const Json content = Json::object({{"version", 1}, {"endpoints", std::move(endpoints)}});
    write_file_atomic(file_, content.pretty() + "\n", 0600);
  } catch (const StorageError& error) {
    warn(error.what());
  }
}

void CapabilityTable::warn(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(warned_, true)) return;
  }
  log::warn("what model endpoints can do is not kept", {{"error", why}});
}

}  // namespace necrocode::llm
