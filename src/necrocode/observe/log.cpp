#include "necrocode/observe/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <mutex>

#include "necrocode/base/text.hpp"
#include "necrocode/base/time_format.hpp"

namespace necrocode::log {
namespace {

thread_local Json::Object scope_fields;

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      return spdlog::level::off;
  }
  return spdlog::level::off;
}

std::string_view name_of(Level level) {
  constexpr std::string_view kNames[] = {"debug", "info", "warn", "error", "off"};
  return kNames[static_cast<std::size_t>(level)];
}

// The sink and its settings. spdlog does the level check and the writing; the record is ours.
struct Sink {
  std::shared_ptr<spdlog::logger> logger = make_logger();
  std::mutex mutex;
  Format format = ::isatty(STDERR_FILENO) == 1 ? Format::kText : Format::kJson;
  std::shared_ptr<const Masker> masker = std::make_shared<Masker>();

  static std::shared_ptr<spdlog::logger> make_logger() {
    auto made = std::make_shared<spdlog::logger>("necrocode",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
    made->set_pattern("%v");
    made->set_level(spdlog::level::warn);
    made->flush_on(spdlog::level::debug);
    return made;
  }
};

Sink& sink() {
  static Sink instance;
  return instance;
}

std::string as_json(Level level, std::string_view message, Fields fields) {
  Json record = Json::object({{"time", to_rfc3339(real_clock().system_now())},
                              {"level", name_of(level)},
                              {"message", message}});
  for (const auto& [name, value] : scope_fields) record.set(name, value);
  for (const auto& [name, value] : fields) record.set(name, value);
  return record.dump();
}

std::string as_text(Level level, std::string_view message, Fields fields) {
  std::string line = std::string(name_of(level)) + ": " + printable(message);
  const auto add = [&line](const JsonMember& field) {
    const auto text = field.second.as_string();
    line += "  " + field.first + "=" + (text ? printable(*text) : field.second.dump());
  };
  for (const JsonMember& field : scope_fields) add(field);
  for (const JsonMember& field : fields) add(field);
  return line;
}

}  // namespace

std::optional<Level> parse_level(std::string_view name) {
  const std::string lower = ascii_lower(name);
  if (lower == "debug") return Level::kDebug;
  if (lower == "info") return Level::kInfo;
  if (lower == "warn" || lower == "warning") return Level::kWarn;
  if (lower == "error") return Level::kError;
  if (lower == "off") return Level::kOff;
  return std::nullopt;
}

void configure(Level level, Format format) {
  Sink& out = sink();
  const std::lock_guard lock(out.mutex);
  out.format = format;
  out.logger->set_level(to_spdlog(level));
}

void set_masker(std::shared_ptr<const Masker> masker) {
  Sink& out = sink();
  const std::lock_guard lock(out.mutex);
  out.masker = std::move(masker);
}

bool enabled(Level level) {
  return sink().logger->should_log(to_spdlog(level));
}

void write(Level level, std::string_view message, Fields fields) {
  if (!enabled(level)) return;
  Sink& out = sink();
  std::shared_ptr<const Masker> masker;
  Format format;
  {
    const std::lock_guard lock(out.mutex);
    masker = out.masker;
    format = out.format;
  }
  const std::string line =
      format == Format::kJson ? as_json(level, message, fields) : as_text(level, message, fields);
  out.logger->log(to_spdlog(level), spdlog::string_view_t(masker->mask(line)));
}

Scope::Scope(Fields fields) : previous_size_(scope_fields.size()) {
  scope_fields.insert(scope_fields.end(), fields.begin(), fields.end());
}

Scope::~Scope() {
  scope_fields.erase(scope_fields.begin() + static_cast<std::ptrdiff_t>(previous_size_),
                     scope_fields.end());
}

}  // namespace necrocode::log
