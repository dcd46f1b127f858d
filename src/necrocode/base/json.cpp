#include "necrocode/base/json.hpp"

#include <algorithm>
#include <boost/json/basic_parser_impl.hpp>
#include <charconv>
#include <cmath>
#include <cstring>

#include "necrocode/base/check.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

namespace bj = boost::json;

// Receives the parser's events and builds the value; `open_` is the path of containers not yet
// closed. It stops the parser at limits::kJsonValues.
class Builder {
 public:
  // The parser's own limits; sizes are bounded by the text's.
  static constexpr std::size_t max_object_size = SIZE_MAX;
  static constexpr std::size_t max_array_size = SIZE_MAX;
  static constexpr std::size_t max_key_size = SIZE_MAX;
  static constexpr std::size_t max_string_size = SIZE_MAX;

  Json take() { return std::move(root_); }

  bool on_document_begin(bj::error_code&) { return true; }
  bool on_document_end(bj::error_code&) { return true; }
  bool on_object_begin(bj::error_code& error) { return begin(Json::object(), error); }
  bool on_object_end(std::size_t, bj::error_code&) { return end(); }
  bool on_array_begin(bj::error_code& error) { return begin(Json::array(), error); }
  bool on_array_end(std::size_t, bj::error_code&) { return end(); }
  bool on_key_part(bj::string_view part, std::size_t, bj::error_code&) { return append(part); }
  bool on_key(bj::string_view part, std::size_t, bj::error_code&) {
    append(part);
    key_ = std::exchange(text_, {});
    return true;
  }
  bool on_string_part(bj::string_view part, std::size_t, bj::error_code&) { return append(part); }
  bool on_string(bj::string_view part, std::size_t, bj::error_code& error) {
    append(part);
    return add(Json(std::exchange(text_, {})), error);
  }
  bool on_number_part(bj::string_view part, bj::error_code&) { return append(part); }
  bool on_int64(std::int64_t value, bj::string_view, bj::error_code& error) {
    text_.clear();
    return add(Json(value), error);
  }
  bool on_uint64(std::uint64_t value, bj::string_view, bj::error_code& error) {
    text_.clear();
    return add(Json(value), error);
  }
  // Boost.JSON 1.81 rounds some numbers to a neighbour (1e300, -2.5e-300), so that they would not
  // come back as they were sent; its value only serves where a double cannot hold the number.
  bool on_double(double value, bj::string_view part, bj::error_code& error) {
    append(part);
    const std::string digits = std::exchange(text_, {});
    double exact = 0;
    const auto [end, problem] =
        std::from_chars(digits.data(), digits.data() + digits.size(), exact);
    if (problem == std::errc{}) return add(Json(exact), error);
    if (std::isfinite(value)) return add(Json(value), error);
    error = bj::error::exponent_overflow;
    return false;
  }
  bool on_bool(bool value, bj::error_code& error) { return add(Json(value), error); }
  bool on_null(bj::error_code& error) { return add(Json(), error); }
  bool on_comment_part(bj::string_view, bj::error_code&) { return true; }
  bool on_comment(bj::string_view, bj::error_code&) { return true; }

 private:
  bool append(bj::string_view part) {
    text_.append(part.data(), part.size());
    return true;
  }
  Json& place(Json value) {
    ++values_;
    if (open_.empty()) {
      root_ = std::move(value);
      return root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) return parent.items().emplace_back(std::move(value));
    return parent.members().emplace_back(std::move(key_), std::move(value)).second;
  }
  bool add(Json value, bj::error_code& error) {
    place(std::move(value));
    return may_go_on(error);
  }
  // A pointer into a container stays valid: only the innermost open one grows.
  bool begin(Json container, bj::error_code& error) {
    open_.push_back(&place(std::move(container)));
    return may_go_on(error);
  }
  bool end() {
    open_.pop_back();
    return true;
  }

  bool may_go_on(bj::error_code& error) {
    if (values_ <= limits::kJsonValues) return true;
    error = bj::error::array_too_large;
    return false;
  }

  Json root_;
  std::size_t values_ = 0;
  std::vector<Json*> open_;
  std::string key_;
  std::string text_;
};

struct Parsed {
  std::optional<Json> value;
  std::string error;
};

Parsed parse_text(std::string_view text, std::size_t depth) {
  bj::parse_options options;
  options.max_depth = depth;
  bj::basic_parser<Builder> parser(options);
  bj::error_code error;
  const std::size_t used = parser.write_some(false, text.data(), text.size(), error);
  if (!error && used < text.size()) {
    return {std::nullopt, "text after the value at byte " + std::to_string(used)};
  }
  if (error == bj::error::array_too_large) {
    return {std::nullopt, "more than " + std::to_string(limits::kJsonValues) + " values"};
  }
  if (error) return {std::nullopt, error.message() + " at byte " + std::to_string(used)};
  return {parser.handler().take(), {}};
}

// What stands for itself in a string.
bool is_plain(unsigned char c) {
  return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

// The same of eight bytes. Each term has the high bit of a byte set when that byte is below 0x20,
// one of the two, 0x7f, or not ASCII.
bool all_plain(const char* eight) {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kHigh = 0x8080808080808080;
  std::uint64_t bytes = 0;
  std::memcpy(&bytes, eight, sizeof bytes);
  const auto is_zero = [](std::uint64_t word) { return (word - kOnes) & ~word; };
  const std::uint64_t special = (bytes - kOnes * 0x20) | is_zero(bytes ^ (kOnes * '"')) |
                                is_zero(bytes ^ (kOnes * '\\')) | is_zero(bytes ^ (kOnes * 0x7f)) |
                                bytes;
  return (special & kHigh) == 0;
}

std::size_t plain_prefix(std::string_view text) {
  std::size_t size = 0;
  while (size + 8 <= text.size() && all_plain(text.data() + size)) size += 8;
  while (size < text.size() && is_plain(static_cast<unsigned char>(text[size]))) ++size;
  return size;
}

void write_string(std::string& out, std::string_view raw) {
  out += '"';
  // Most text is plain for long: the rest is looked at byte by byte.
  const std::size_t prefix = plain_prefix(raw);
  out += raw.substr(0, prefix);
  raw.remove_prefix(prefix);
  if (raw.empty()) {
    out += '"';
    return;
  }
  std::string repaired;
  std::string_view text = raw;
  if (!is_utf8(raw)) text = repaired = to_valid_utf8(raw);
  std::size_t plain = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) continue;
    out += text.substr(plain, i - plain);
    plain = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default: {
        const char byte = static_cast<char>(c);
        out += "\\u00";
        out += to_hex({&byte, 1});
      }
    }
  }
  out += text.substr(plain);
  out += '"';
}

void write_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char buffer[32];
  const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value);
  NECROCODE_CHECK(error == std::errc{});
  const std::string_view digits(buffer, static_cast<std::size_t>(end - buffer));
  out += digits;
  if (digits.find_first_of(".e") == std::string_view::npos) out += ".0";
}

// `indent` < 0: compact. Depth is bounded because parsed values are and ours are shallow.
void write(std::string& out, const Json& value, int indent, int level) {
  NECROCODE_CHECK(level < 1000);
  const auto new_line = [&](int at) {
    if (indent >= 0) {
      out.append("\n").append(static_cast<std::size_t>(indent) * static_cast<std::size_t>(at), ' ');
    }
  };
  if (value.is_null()) {
    out += "null";
  } else if (const auto boolean = value.as_bool()) {
    out += *boolean ? "true" : "false";
  } else if (value.is_int()) {
    out += std::to_string(*value.as_int());
  } else if (value.is_number()) {
    write_double(out, *value.as_double());
  } else if (const auto text = value.as_string()) {
    write_string(out, *text);
  } else if (value.is_array()) {
    out += '[';
    bool first = true;
    for (const Json& item : value.items()) {
      if (!first) out += ',';
      first = false;
      new_line(level + 1);
      write(out, item, indent, level + 1);
    }
    if (!first) new_line(level);
    out += ']';
  } else {
    out += '{';
    bool first = true;
    for (const auto& [name, member] : value.members()) {
      if (!first) out += ',';
      first = false;
      new_line(level + 1);
      write_string(out, name);
      out += indent < 0 ? ":" : ": ";
      write(out, member, indent, level + 1);
    }
    if (!first) new_line(level);
    out += '}';
  }
}

}  // namespace

Json::Json(const std::vector<std::string>& values) : value_(Array(values.begin(), values.end())) {}
Json::Json(Array values) : value_(std::move(values)) {}
Json::Json(Object members) : value_(std::move(members)) {}

Json Json::object(std::initializer_list<JsonMember> members) {
  return Json(Object(members));
}

Json Json::parse(std::string_view text, std::string_view what, std::size_t depth) {
  Parsed parsed = parse_text(text, depth);
  if (!parsed.value)
    throw InvalidResponse(std::string(what) + " is not valid JSON: " + parsed.error);
  return std::move(*parsed.value);
}

std::optional<Json> Json::try_parse(std::string_view text, std::size_t depth) {
  return parse_text(text, depth).value;
}

std::string_view Json::type_name() const {
  constexpr std::string_view kNames[] = {"null",     "a boolean", "an integer", "a number",
                                         "a string", "an array",  "an object"};
  return kNames[value_.index()];
}

std::optional<bool> Json::as_bool() const {
  const bool* value = std::get_if<bool>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::int64_t> Json::as_int() const {
  if (const auto* value = std::get_if<std::int64_t>(&value_)) return *value;
  const double* value = std::get_if<double>(&value_);
  // 2^63 is the first double that no int64 can hold.
  if (value && std::nearbyint(*value) == *value && *value >= -0x1p63 && *value < 0x1p63) {
    return static_cast<std::int64_t>(*value);
  }
  return std::nullopt;
}

std::optional<double> Json::as_double() const {
  if (const auto* value = std::get_if<std::int64_t>(&value_)) return static_cast<double>(*value);
  const double* value = std::get_if<double>(&value_);
  return value ? std::optional(*value) : std::nullopt;
}

std::optional<std::string_view> Json::as_string() const {
  const auto* value = std::get_if<std::string>(&value_);
  return value ? std::optional<std::string_view>(*value) : std::nullopt;
}

const Json::Array& Json::items() const& {
  static const Array kNone;
  const auto* value = std::get_if<Array>(&value_);
  return value ? *value : kNone;
}

const Json::Object& Json::members() const& {
  static const Object kNone;
  const auto* value = std::get_if<Object>(&value_);
  return value ? *value : kNone;
}

Json::Array& Json::items() & {
  if (is_null()) value_ = Array{};
  NECROCODE_CHECK(is_array());
  return std::get<Array>(value_);
}

Json::Object& Json::members() & {
  if (is_null()) value_ = Object{};
  NECROCODE_CHECK(is_object());
  return std::get<Object>(value_);
}

Json::Array Json::items() && {
  return is_array() ? std::get<Array>(std::move(value_)) : Array{};
}

Json::Object Json::members() && {
  return is_object() ? std::get<Object>(std::move(value_)) : Object{};
}

Json::Array Json::items() const&& {
  return std::as_const(*this).items();
}

Json::Object Json::members() const&& {
  return std::as_const(*this).members();
}

const Json* Json::find(std::string_view name) const {
  const Object& all = members();
  const auto found = std::find_if(all.rbegin(), all.rend(),
                                  [&](const JsonMember& member) { return member.first == name; });
  return found == all.rend() ? nullptr : &found->second;
}

std::size_t Json::depth() const {
  std::size_t deepest = 0;
  for (const Json& item : items()) deepest = std::max(deepest, item.depth());
  for (const auto& [name, member] : members()) deepest = std::max(deepest, member.depth());
  return is_array() || is_object() ? deepest + 1 : 0;
}

const Json& Json::operator[](std::string_view name) const& {
  static const Json kNull;
  const Json* found = find(name);
  return found ? *found : kNull;
}

Json Json::operator[](std::string_view name) && {
  const Json* found = find(name);
  return found ? std::move(*const_cast<Json*>(found)) : Json();
}

Json Json::operator[](std::string_view name) const&& {
  return std::as_const(*this)[name];
}

Json& Json::set(std::string_view name, Json value) {
  if (const Json* found = find(name)) {
    *const_cast<Json*>(found) = std::move(value);
  } else {
    members().emplace_back(std::string(name), std::move(value));
  }
  return *this;
}

void Json::erase(std::string_view name) {
  std::erase_if(members(), [&](const JsonMember& member) { return member.first == name; });
}

std::string Json::string_or(std::string_view otherwise) const {
  return std::string(as_string().value_or(otherwise));
}

std::string Json::dump() const {
  std::string out;
  write(out, *this, -1, 0);
  return out;
}

std::string Json::pretty() const {
  std::string out;
  write(out, *this, 2, 0);
  return out;
}

}  // namespace necrocode
