// JsonView: how the dialects read a service's JSON, by simdjson: a streamed answer is thousands of
// small documents. Only for answers on their way; what is kept or checked field by field is Json.
// What is missing or of another type is simply not there: no answer may end the reader.
// Never in a header: simdjson's types differ with its macros, which only this folder's files have.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "necrocode/base/limits.hpp"
#include "necrocode/llm/completion.hpp"

namespace necrocode::llm {

/// A value in a document, or nothing. Valid until its reader reads another document.
class JsonView {
 public:
  JsonView() = default;
  explicit JsonView(simdjson::dom::element value) : value_(value) {}

  JsonView operator[](std::string_view name) const {
    simdjson::dom::element member;
    if (!is_object() || (*value_)[name].get(member) != simdjson::SUCCESS) return {};
    return JsonView(member);
  }
  JsonView front() const {
    simdjson::dom::element first;
    if (!is_array() || value_->at(0).get(first) != simdjson::SUCCESS) return {};
    return JsonView(first);
  }
  /// Calls `take` with each element; with none when this is not an array.
  template <class Take>
  void each(Take take) const {
    simdjson::dom::array elements;
    if (!value_ || value_->get(elements) != simdjson::SUCCESS) return;
    for (const simdjson::dom::element element : elements) take(JsonView(element));
  }

  /// Calls `take` with each member's name and value; with none when this is not an object. Cheaper
  /// than looking for several names, which walks the object for each.
  template <class Take>
  void each_member(Take take) const {
    simdjson::dom::object members;
    if (!value_ || value_->get(members) != simdjson::SUCCESS) return;
    for (const auto& [name, value] : members) take(name, JsonView(value));
  }

  bool is_object() const { return value_ && value_->is_object(); }
  bool is_array() const { return value_ && value_->is_array(); }
  bool is_string() const { return value_ && value_->is_string(); }
  /// There, and not null.
  bool given() const { return value_ && !value_->is_null(); }
  /// The string, or empty.
  std::string_view text() const {
    std::string_view string;
    if (!value_ || value_->get(string) != simdjson::SUCCESS) return {};
    return string;
  }
  /// A whole number from 0 to `max`.
  std::optional<std::int64_t> count(std::int64_t max) const {
    std::int64_t number = 0;
    if (!value_ || value_->get(number) != simdjson::SUCCESS) return std::nullopt;
    return number >= 0 && number <= max ? std::optional(number) : std::nullopt;
  }
  /// The value as JSON text.
  std::string dump() const { return value_ ? simdjson::minify(*value_) : std::string("null"); }

 private:
  std::optional<simdjson::dom::element> value_;
};

/// A count of the service's, or 0.
inline std::int64_t count_or_zero(JsonView value) {
  return value.count(kTokensMax).value_or(0);
}

/// The member "error" of an answer or event: some services send it empty.
inline bool tells_an_error(JsonView error) {
  return error.is_object() || !error.text().empty();
}

/// Reads one document after the other, in memory that it keeps. Not thread-safe.
class JsonReader {
 public:
  /// Nothing when `text` is not JSON, not UTF-8, or nested deeper than limits::kJsonDepth.
  std::optional<JsonView> read(std::string_view text) {
    // simdjson reads beyond the end: it wants room there.
    if (text.size() + simdjson::SIMDJSON_PADDING > padded_.size()) {
      padded_.resize(2 * text.size() + simdjson::SIMDJSON_PADDING);
      if (parser_.allocate(padded_.size(), limits::kJsonDepth) != simdjson::SUCCESS) return {};
    }
    text.copy(padded_.data(), text.size());
    simdjson::dom::element root;
    if (parser_.parse(padded_.data(), text.size(), false).get(root) != simdjson::SUCCESS) return {};
    return JsonView(root);
  }
  std::size_t capacity() const { return padded_.size(); }

 private:
  std::string padded_;
  simdjson::dom::parser parser_;
};

/// A reader for one answer. A thread keeps one of moderate size for its next answer: making one
/// costs more than reading a short answer. It is taken out meanwhile, so that whoever is called
/// while an answer is read may read another.
class JsonReaderLease {
 public:
  JsonReaderLease() : reader_(std::exchange(spare(), nullptr)) {
    if (!reader_) reader_ = std::make_unique<JsonReader>();
  }
  ~JsonReaderLease() {
    if (reader_->capacity() <= kSpareBytes) spare() = std::move(reader_);
  }
  JsonReaderLease(const JsonReaderLease&) = delete;
  JsonReaderLease& operator=(const JsonReaderLease&) = delete;
  JsonReader* operator->() { return reader_.get(); }

 private:
  static constexpr std::size_t kSpareBytes = 64 * limits::kKiB;  // some 16 times that, in all
  static std::unique_ptr<JsonReader>& spare() {
    thread_local std::unique_ptr<JsonReader> kept;
    return kept;
  }
  std::unique_ptr<JsonReader> reader_;
};

}  // namespace necrocode::llm
