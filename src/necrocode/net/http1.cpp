#include "necrocode/net/http1.hpp"

#include <algorithm>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::net {
namespace {

// " HTTP/1.1" and the longest method anyone registers are well below this.
constexpr std::size_t kRequestLineExtra = 64;
// A chunk's size line with extensions, or all trailers of one body.
constexpr std::size_t kChunkFramingBytes = 4 * limits::kKiB;
// 2^60 bytes in one chunk, so that the sum cannot overflow while it is counted.
constexpr std::size_t kChunkSizeDigits = 15;

bool is_token_char(char c) {
  return is_ascii_alnum(c) || std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}
bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char);
}
bool is_visible(char c) {
  return c > 0x20 && c < 0x7f;
}
bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte < 0x20 || byte == 0x7f;
}

Refusal bad(std::string detail) {
  return {400, std::move(detail)};
}

std::optional<Refusal> parse_request_line(std::string_view line, RequestHead& head) {
  const std::size_t first = line.find(' ');
  const std::size_t last = line.rfind(' ');
  if (first == std::string_view::npos || first == last) return bad("malformed request line");
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, last - first - 1);
  const std::string_view version = line.substr(last + 1);
  if (!is_token(method)) return bad("malformed method");
  if (target.size() > limits::kHttpTargetBytes) return Refusal{414, "the target is too long"};
  if (target.empty() || !std::all_of(target.begin(), target.end(), is_visible)) {
    return bad("malformed target");
  }
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return bad("not an HTTP/1 version");
  head.method = method;
  head.target = target;
  head.http_1_0 = version == "HTTP/1.0";
  return std::nullopt;
}

std::optional<Refusal> parse_field(std::string_view line, Headers& headers) {
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
    return bad("malformed header field");
  }
  headers.add(line.substr(0, colon), std::string(trim(line.substr(colon + 1))));
  return std::nullopt;
}

// RFC 9112 section 6.3: how long the body is, or that nobody can tell.
std::optional<Refusal> read_framing(RequestHead& head) {
  const std::size_t codings = head.headers.count("Transfer-Encoding");
  if (codings > 0 && head.headers.count("Content-Length") > 0) {
    return bad("both Content-Length and Transfer-Encoding");
  }
  if (codings > 0) {
    if (codings > 1 || head.http_1_0 ||
        !iequals(*head.headers.get("Transfer-Encoding"), "chunked")) {
      return bad("a Transfer-Encoding other than chunked");
    }
    head.chunked = true;
  }
  for (const auto& [name, value] : head.headers) {
    if (!iequals(name, "Content-Length")) continue;
    const auto length = parse_uint(value);
    if (!length) return bad("malformed Content-Length");
    if (head.content_length && *head.content_length != *length) {
      return bad("several Content-Length fields that differ");
    }
    head.content_length = length;
  }
  return std::nullopt;
}

std::optional<Refusal> read_host(const RequestHead& head) {
  const std::size_t hosts = head.headers.count("Host");
  if (hosts > 1) return bad("several Host fields");
  if (hosts == 0) {
    if (head.http_1_0) return std::nullopt;
    return bad("no Host field");
  }
  const std::string host = head.headers.get_or("Host", "");
  for (const char c : host) {
    const bool allowed = is_ascii_alnum(c) ||
                         std::string_view("-._~!$&'()*+,;=:[]%").find(c) != std::string_view::npos;
    if (!allowed) return bad("malformed Host field");
  }
  return std::nullopt;
}

std::optional<Refusal> read_connection(RequestHead& head) {
  bool close = false;
  bool keep = false;
  for (const auto& [name, value] : head.headers) {
    if (!iequals(name, "Connection")) continue;
    for (const std::string_view option : split(value, ',')) {
      if (iequals(trim(option), "close")) close = true;
      if (iequals(trim(option), "keep-alive")) keep = true;
    }
  }
  head.keep_alive = !close && (!head.http_1_0 || keep);
  if (const auto expect = head.headers.get("Expect"); expect && !head.http_1_0) {
    if (!iequals(*expect, "100-continue")) return Refusal{417, "an expectation nobody knows"};
    head.expects_continue = head.chunked || head.content_length.value_or(0) > 0;
  }
  return std::nullopt;
}

// One path segment, decoded; refused when a file system or a proxy might read it as more than one.
std::variant<std::string, Refusal> decode_segment(std::string_view encoded) {
  auto segment = percent_decode(encoded);
  if (!segment) return bad("malformed percent-encoding in the path");
  if (segment->find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
    return bad("a slash, backslash or NUL inside a path segment");
  }
  if (*segment == "." || *segment == "..") return bad("a dot segment in the path");
  if (!is_utf8(*segment)) return bad("the path is not UTF-8");
  return std::move(*segment);
}

std::optional<Refusal> parse_query(std::string_view text, Target& target) {
  for (const std::string_view pair : split(text, '&')) {
    if (pair.empty()) continue;
    const std::size_t equals = std::min(pair.find('='), pair.size());
    const auto name = percent_decode(pair.substr(0, equals), true);
    const auto value = percent_decode(pair.substr(std::min(equals + 1, pair.size())), true);
    if (!name || !value) return bad("malformed percent-encoding in the query");
    for (const std::string& decoded : {*name, *value}) {
      if (!is_utf8(decoded) || decoded.find('\0') != std::string::npos) {
        return bad("the query is not text");
      }
    }
    target.query.emplace_back(*name, *value);
  }
  return std::nullopt;
}

// Without scheme and authority; nothing when it is neither origin form nor absolute form.
std::optional<std::string_view> origin_form(std::string_view target) {
  if (target.starts_with('/')) return target;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!iequals(target.substr(0, scheme.size()), scheme)) continue;
    const std::size_t path = target.find_first_of("/?", scheme.size());
    if (path == scheme.size()) return std::nullopt;
    if (path == std::string_view::npos) return "/";
    if (target[path] == '/') return target.substr(path);
  }
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> HeadScanner::take(char c, std::size_t position) {
  if (after_cr_ != (c == '\n')) return bad("CR or LF alone in the head");
  after_cr_ = c == '\r';
  if (c == '\n') {
    complete_ = position == line_start_ + 1;
    line_start_ = position + 1;
    // The request line and the empty line are no fields.
    if (++lines_ > limits::kHttpHeaderCount + 1 && !complete_) {
      return Refusal{431, "too many header fields"};
    }
    return std::nullopt;
  }
  if (position == line_start_ && lines_ > 0 && (c == ' ' || c == '\t')) {
    return bad("a folded header field");
  }
  if (is_control(c) && c != '\r' && c != '\t') return bad("a control character in the head");
  if (lines_ == 0 && position >= limits::kHttpTargetBytes + kRequestLineExtra) {
    return Refusal{414, "the request line is too long"};
  }
  if (position >= limits::kHttpHeaderBytes) return Refusal{431, "the head is too large"};
  return std::nullopt;
}

std::variant<std::monostate, std::size_t, Refusal> HeadScanner::scan(std::string_view buffer) {
  while (scanned_ < buffer.size() && !complete_) {
    if (auto refusal = take(buffer[scanned_], scanned_)) return *std::move(refusal);
    ++scanned_;
  }
  if (complete_) return scanned_;
  return std::monostate{};
}

std::variant<RequestHead, Refusal> parse_request_head(std::string_view text) {
  RequestHead head;
  std::size_t line_end = text.find("\r\n");
  if (line_end == std::string_view::npos) return bad("malformed request line");
  if (auto refusal = parse_request_line(text.substr(0, line_end), head)) return *std::move(refusal);
  for (text.remove_prefix(line_end + 2); !text.empty(); text.remove_prefix(line_end + 2)) {
    line_end = text.find("\r\n");
    if (line_end == std::string_view::npos) return bad("malformed header field");
    if (line_end == 0) break;
    if (auto refusal = parse_field(text.substr(0, line_end), head.headers)) {
      return *std::move(refusal);
    }
  }
  for (const auto& check : {read_framing(head), read_host(head), read_connection(head)}) {
    if (check) return *check;
  }
  return head;
}

std::variant<std::monostate, RequestHead, Refusal> HeadReader::take(std::string& buffer) {
  while (true) {
    auto found = scanner_.scan(buffer);
    if (auto* refusal = std::get_if<Refusal>(&found)) return std::move(*refusal);
    const auto* size = std::get_if<std::size_t>(&found);
    if (size == nullptr) return std::monostate{};
    // RFC 9112 section 2.2: one empty line before a request is passed over.
    const bool empty_line = *size == 2 && !std::exchange(skipped_empty_line_, true);
    if (!empty_line) {
      auto head = parse_request_head(std::string_view(buffer).substr(0, *size));
      buffer.erase(0, *size);
      if (auto* refusal = std::get_if<Refusal>(&head)) return std::move(*refusal);
      return std::get<RequestHead>(std::move(head));
    }
    buffer.erase(0, *size);
    scanner_ = HeadScanner();
  }
}

std::variant<Target, Refusal> parse_target(std::string_view text) {
  const auto origin = origin_form(text);
  if (!origin) return bad("the target is neither a path nor an http URL");
  if (origin->find('#') != std::string_view::npos) return bad("a fragment in the target");
  if (origin->find('\\') != std::string_view::npos) return bad("a backslash in the target");
  const std::size_t question = std::min(origin->find('?'), origin->size());
  Target target;
  target.path = origin->substr(0, question);
  for (const std::string_view encoded : split(std::string_view(target.path).substr(1), '/')) {
    auto segment = decode_segment(encoded);
    if (auto* refusal = std::get_if<Refusal>(&segment)) return std::move(*refusal);
    target.segments.push_back(std::get<std::string>(std::move(segment)));
  }
  if (question < origin->size()) {
    if (auto refusal = parse_query(origin->substr(question + 1), target))
      return *std::move(refusal);
  }
  return target;
}

// One byte that is not body. False when it has no place there.
bool ChunkDecoder::frame(char c) {
  if (++framing_bytes_ > kChunkFramingBytes) return false;
  switch (state_) {
    case State::kSize: {
      const char lower = ascii_lower(c);
      const bool hex = is_ascii_digit(c) || (lower >= 'a' && lower <= 'f');
      if (hex) {
        left_ = left_ * 16 + static_cast<unsigned>(is_ascii_digit(c) ? c - '0' : lower - 'a' + 10);
        return ++digits_ <= kChunkSizeDigits;
      }
      if (digits_ == 0) return false;
      state_ = c == '\r' ? State::kSizeLf : State::kExtension;
      return c == '\r' || c == ';';
    }
    case State::kExtension:
      if (c == '\r') state_ = State::kSizeLf;
      return c == '\r' || c == '\t' || !is_control(c);
    case State::kSizeLf:
      state_ = left_ == 0 ? State::kTrailer : State::kData;
      framing_bytes_ = 0;
      return c == '\n';
    case State::kDataCr:
      state_ = State::kDataLf;
      return c == '\r';
    case State::kDataLf:
      state_ = State::kSize;
      digits_ = 0;
      framing_bytes_ = 0;
      return c == '\n';
    case State::kTrailer:
      if (c == '\r') {
        state_ = State::kTrailerLf;
        return true;
      }
      if (trailer_line_empty_ && !is_token_char(c)) return false;
      trailer_line_empty_ = false;
      return c == '\t' || !is_control(c);
    case State::kTrailerLf:
      state_ = trailer_line_empty_ ? State::kDone : State::kTrailer;
      trailer_line_empty_ = true;
      return c == '\n';
    case State::kData:
    case State::kDone:
      break;
  }
  return false;
}

std::variant<std::size_t, Refusal> ChunkDecoder::decode(std::string_view input, std::string& out,
                                                        std::size_t out_max) {
  std::size_t used = 0;
  while (used < input.size() && !done()) {
    if (state_ != State::kData) {
      if (!frame(input[used++])) return bad("malformed chunked framing");
      continue;
    }
    const std::size_t room = out_max - std::min(out.size(), out_max);
    if (room == 0) break;
    const auto count = static_cast<std::size_t>(
        std::min<std::uint64_t>(std::min(room, input.size() - used), left_));
    out.append(input.substr(used, count));
    used += count;
    left_ -= count;
    if (left_ == 0) state_ = State::kDataCr;
  }
  return used;
}

}  // namespace necrocode::net
