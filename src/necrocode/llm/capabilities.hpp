// What model endpoints can do, as their 400s have taught it: for each endpoint and model, in memory
// and in one file for the processes to come.
#pragma once

#include <chrono>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "necrocode/base/clock.hpp"

namespace necrocode::llm {

/// How an answer's format can be asked for, the strongest first.
enum class Format { kJsonSchema, kJsonObject, kText };
std::string_view to_string(Format format);  ///< "json_schema", "json_object", "text"

/// What a request to an endpoint may hold. Begins with everything; each 400 takes something away.
struct Capabilities {
  Format format = Format::kJsonSchema;
  bool max_tokens = true;  ///< false: it is called max_completion_tokens
  bool temperature = true;
  bool stream = true;
  bool stream_options = true;
  friend bool operator==(const Capabilities&, const Capabilities&) = default;
};
/// What both allow.
Capabilities common(const Capabilities& a, const Capabilities& b);

/// Thread-safe; one for all clients of a process. What has been learned is forgotten after 7 days,
/// since endpoints are upgraded; of more than 1,000 keys the oldest are. No trouble with the file
/// is an error: it is ignored, with one warning in the log, and what it held is learned anew.
class CapabilityTable {
 public:
  /// In memory only.
  CapabilityTable() = default;
  /// Reads `file` now. It is written, with mode 0600, at each news; what other processes have
  /// written meanwhile is kept, and read. A lock stands beside it, as FILE.lock.
  explicit CapabilityTable(std::filesystem::path file, const Clock& clock = real_clock());

  /// `key`: endpoint without credentials, model and dialect. Everything, when nothing is known.
  Capabilities of(const std::string& key) const;
  /// Keeps what both `learned` and all before it allow, and returns that. Writes the file when that
  /// is news, which may wait for another process, but at most a second.
  Capabilities learn(const std::string& key, const Capabilities& learned);

 private:
  struct Entry {
    Capabilities capabilities;
    SystemTime learned_at;
  };
  using Entries = std::map<std::string, Entry>;

  bool holds(const Entry& entry) const;
  static void forget_oldest(Entries& entries);
  static void merge(Entries& into, const Entries& from);
  Entries read();
  void write();
  void warn(const std::string& why);

  const std::filesystem::path file_;
  const Clock* clock_ = &real_clock();
  mutable std::mutex mutex_;
  Entries entries_;
  bool warned_ = false;
};

}  // namespace necrocode::llm
