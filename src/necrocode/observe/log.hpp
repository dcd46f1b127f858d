// Structured log: one record a line on stderr, JSON when not on a terminal. Every record is masked
// and made printable before it is written, so that neither a secret nor a newline gets through.
#pragma once

#include <initializer_list>
#include <memory>
#include <string_view>

#include "necrocode/base/json.hpp"
#include "necrocode/base/masking.hpp"

namespace necrocode::log {

enum class Level { kDebug, kInfo, kWarn, kError, kOff };
enum class Format { kJson, kText };

/// Nothing for an unknown name (debug, info, warn or warning, error, off).
std::optional<Level> parse_level(std::string_view name);

/// Process-wide settings; call before threads start. Default: kWarn, JSON unless stderr is a
/// terminal.
void configure(Level level, Format format);
/// Replaces the secrets to mask; thread-safe.
void set_masker(std::shared_ptr<const Masker> masker);
bool enabled(Level level);

using Fields = std::initializer_list<JsonMember>;
void write(Level level, std::string_view message, Fields fields = {});

inline void debug(std::string_view message, Fields fields = {}) {
  write(Level::kDebug, message, fields);
}
inline void info(std::string_view message, Fields fields = {}) {
  write(Level::kInfo, message, fields);
}
inline void warn(std::string_view message, Fields fields = {}) {
  write(Level::kWarn, message, fields);
}
inline void error(std::string_view message, Fields fields = {}) {
  write(Level::kError, message, fields);
}

/// Fields added to every record of this thread while it lives (runner, task, phase).
class Scope {
 public:
  explicit Scope(Fields fields);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  std::size_t previous_size_;
};

}  // namespace necrocode::log
