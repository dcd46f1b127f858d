#include "necrocode/artifacts/content_headers.hpp"

#include <algorithm>
#include <array>

#include "necrocode/base/digest.hpp"
#include "necrocode/base/text.hpp"
#include "necrocode/net/http_server.hpp"

namespace necrocode::artifacts {
namespace {

// Types that no browser runs, whatever is in them, as long as it may not sniff.
constexpr std::array<std::string_view, 10> kInertTypes = {
    "text/plain", "text/x-diff", "text/x-patch", "text/csv",   "text/markdown",
    "image/png",  "image/jpeg",  "image/gif",    "image/webp", "application/json"};

bool all_digits(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_ascii_digit);
}

// A position beyond 64 bits is as good as the largest.
std::uint64_t saturated(std::string_view digits) {
  return parse_uint(digits).value_or(UINT64_MAX);
}

bool is_token(std::string_view text) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) {
    return is_ascii_alnum(c) || kMarks.find(c) != std::string_view::npos;
  });
}

// Without folders, so that no browser is tempted to make some.
std::string file_name_parameter(std::string_view name) {
  std::string flat(name);
  std::replace_if(flat.begin(), flat.end(), [](char c) { return c == '/' || c == '\\'; }, '_');
  return "filename*=UTF-8''" + percent_encode(flat);
}

}  // namespace

ByteRange parse_range(std::string_view field, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  const ByteRange whole{ByteRange::Kind::kWhole, 0, size};
  const ByteRange unsatisfiable{ByteRange::Kind::kUnsatisfiable, 0, 0};
  if (field.size() < kUnit.size() || !iequals(field.substr(0, kUnit.size()), kUnit)) return whole;
  const std::string_view spec = trim(field.substr(kUnit.size()));
  const std::size_t dash = spec.find('-');
  if (dash == std::string_view::npos) return whole;
  const std::string_view first = spec.substr(0, dash);
  const std::string_view last = spec.substr(dash + 1);

  if (first.empty()) {  // the last so many bytes
    if (!all_digits(last)) return whole;
    const std::uint64_t count = std::min(saturated(last), size);
    if (count == 0) return unsatisfiable;
    return {ByteRange::Kind::kPart, size - count, count};
  }
  if (!all_digits(first) || (!last.empty() && !all_digits(last))) return whole;
  const std::uint64_t from = saturated(first);
  const std::uint64_t to = last.empty() ? UINT64_MAX : saturated(last);
  if (to < from) return whole;
  if (from >= size) return unsatisfiable;
  return {ByteRange::Kind::kPart, from, std::min(to, size - 1) - from + 1};
}

std::string content_range(const ByteRange& range, std::uint64_t size) {
  if (range.kind == ByteRange::Kind::kUnsatisfiable) return "bytes */" + std::to_string(size);
  return "bytes " + std::to_string(range.offset) + "-" +
         std::to_string(range.offset + range.size - 1) + "/" + std::to_string(size);
}

bool is_media_type(std::string_view text) {
  if (!net::is_valid_header("Content-Type", text)) return false;
  const std::string_view essence = trim(text.substr(0, text.find(';')));
  const std::size_t slash = essence.find('/');
  return slash != std::string_view::npos && is_token(essence.substr(0, slash)) &&
         is_token(essence.substr(slash + 1));
}

void add_safe_content_headers(net::Headers& headers, std::string_view media_type,
                              std::string_view name) {
  const std::string type(is_media_type(media_type) ? media_type : "application/octet-stream");
  const std::string essence = ascii_lower(trim(type.substr(0, type.find(';'))));
  const bool inert =
      std::find(kInertTypes.begin(), kInertTypes.end(), essence) != kInertTypes.end();
  headers.set("Content-Type", type);
  headers.set("X-Content-Type-Options", "nosniff");
  headers.set("Content-Security-Policy", "default-src 'none'; sandbox");
  headers.set("Content-Disposition",
              (inert ? "inline; " : "attachment; ") + file_name_parameter(name));
}

AnnouncedDigest::AnnouncedDigest(const net::Headers& headers) {
  for (const char* name : {"Content-Digest", "Repr-Digest"}) {
    const std::string field = headers.get_or(name, "");
    if (field.find("sha-256=") == std::string::npos) continue;
    const auto sha256 = sha256_from_digest_header(field);
    if (!sha256) throw net::HttpError(400, std::string(name) + " has a malformed sha-256");
    if (!matches(*sha256)) throw net::HttpError(400, "Content-Digest and Repr-Digest differ");
    sha256_ = *sha256;
  }
}

}  // namespace necrocode::artifacts
