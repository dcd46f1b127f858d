// How it works: at each position of the text that a filter over three bytes lets through, the
// longest form of a secret that begins there is looked up (a walk through the sorted forms), and
// each token shape is tried. All matches, also overlapping ones, are collected as spans; their
// union is hidden. Whether a match begins at a position depends only on the character before and
// the text after, so the outcome does not depend on how the text is cut: where the text ends too
// early to decide, the position waits.
//
// Foreign text must cost in proportion to its length: a run of characters into which many positions
// look ("-eyJ-eyJ…") is followed once, and what was seen of it kept (Run, KeyRun, EscapeRuns).
#include "necrocode/base/masking.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <utility>

#include "necrocode/base/base64.hpp"
#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/base/secret_forms.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode {
namespace {

constexpr std::string_view kMask = "***";
constexpr char kEscape = '\x1b';
constexpr std::size_t kColourBytesMax = 32;  // of one escape sequence

// ---- the shapes of tokens
// ------------------------------------------------------------------------

enum class Set { kAlnum, kBase64, kUpper, kWord, kDashed, kWordDashed, kToken, kDotted };

constexpr bool in_set(Set set, char c) {
  switch (set) {
    case Set::kAlnum:
      return is_ascii_alnum(c);
    case Set::kBase64:
      return is_ascii_alnum(c) || c == '+' || c == '/' || c == '=';
    case Set::kUpper:
      return is_ascii_digit(c) || (c >= 'A' && c <= 'Z');
    case Set::kWord:
      return is_ascii_alnum(c) || c == '_';
    case Set::kDashed:
      return is_ascii_alnum(c) || c == '-';
    case Set::kWordDashed:
      return is_ascii_alnum(c) || c == '_' || c == '-';
    case Set::kDotted:
      return is_ascii_alnum(c) || c == '_' || c == '-' || c == '.';
    case Set::kToken:  // RFC 7235 token68
      return is_ascii_alnum(c) || std::string_view("-._~+/=").find(c) != std::string_view::npos;
  }
  return false;
}

/// What follows a prefix.
struct Value {
  std::string_view text;
  bool has_digit;
  bool has_two_dots;
};

struct Shape {
  std::string_view prefix;
  Set set;
  std::size_t min;
  std::size_t max;     ///< of characters after the prefix; more is not part of a token
  bool at_word_start;  ///< not in the middle of a word: "task-…" is no "sk-…"
  bool (*accept)(const Value& value) = nullptr;
  bool keep_prefix = false;  ///< only the value is hidden
  bool any_case = false;
};

bool has_digit(const Value& value) {
  return value.has_digit;
}
/// But for the keys that agent programs get from us, which are worth nothing (llm/run_meter.cpp).
bool is_key(const Value& value) {
  return value.has_digit && !value.text.starts_with("necrocode-");
}
/// Three parts with dots between (RFC 7519); the last may be empty.
bool is_jwt(const Value& value) {
  return value.has_two_dots && value.has_digit;
}
/// base64 of "user:password" (RFC 7617), so that "Basic authentication" stays a pair of words.
bool is_basic(const Value& value) {
  const auto decoded = base64_decode(value.text);
  return decoded && decoded->find(':') != std::string::npos;
}

constexpr std::size_t kLong = limits::kTokenShapeBytes;
constexpr std::array kShapes = {
    Shape{"ghp_", Set::kAlnum, 30, 255, false},
    Shape{"gho_", Set::kAlnum, 30, 255, false},
    Shape{"ghu_", Set::kAlnum, 30, 255, false},
    Shape{"ghs_", Set::kAlnum, 30, 255, false},
    Shape{"ghr_", Set::kAlnum, 30, 255, false},
    Shape{"github_pat_", Set::kWord, 22, 255, false},
    Shape{"glpat-", Set::kWordDashed, 20, 255, false},
    Shape{"sk-", Set::kWordDashed, 20, 255, true, is_key},
    Shape{"AKIA", Set::kUpper, 16, 16, true},
    Shape{"ASIA", Set::kUpper, 16, 16, true},
    Shape{"AIza", Set::kWordDashed, 35, 35, true},
    Shape{"xoxa-", Set::kDashed, 10, 255, false},
    Shape{"xoxb-", Set::kDashed, 10, 255, false},
    Shape{"xoxp-", Set::kDashed, 10, 255, false},
    Shape{"xoxr-", Set::kDashed, 10, 255, false},
    Shape{"xoxs-", Set::kDashed, 10, 255, false},
    Shape{"npm_", Set::kAlnum, 36, 255, true},
    Shape{"hf_", Set::kAlnum, 30, 255, true, has_digit},
    Shape{"eyJ", Set::kDotted, 30, kLong, true, is_jwt},
    Shape{"bearer ", Set::kToken, 16, kLong, true, has_digit, true, true},
    Shape{"basic ", Set::kBase64, 8, kLong, true, is_basic, true, true},
};
constexpr std::string_view kPemBegin = "-----BEGIN ";
constexpr std::string_view kPemKind = "PRIVATE KEY";
constexpr std::string_view kPemEnd = "-----END ";
constexpr std::size_t kPemTitleBytes = 48;  // "ENCRYPTED PRIVATE KEY-----" and the like

/// What can stand between BEGIN and END: base64, line ends (also escaped, quoted, or as a diff
/// shows them) and the headers of old formats.
constexpr bool in_pem(char c) {
  return is_ascii_alnum(c) || c == ' ' || c == '\t' || c == '\r' || c == '\n' ||
         std::string_view("+/=-\\\"',:;|>").find(c) != std::string_view::npos;
}

/// Whether something begins at a position.
struct Verdict {
  enum Kind { kNothing, kMatch, kWait } kind = kNothing;
  std::size_t begin = 0;  ///< what to hide
  std::size_t end = 0;
};
constexpr Verdict kWaiting{Verdict::kWait};

bool begins_with(std::string_view text, std::string_view prefix, bool any_case) {
  const std::string_view start = text.substr(0, prefix.size());
  return any_case ? iequals(start, prefix.substr(0, start.size()))
                  : start == prefix.substr(0, start.size());
}

// What is kept of the text ahead counts positions of the text held, of which `bytes` are let go at
// times. An end is one past; 0 is none.
void let_go_of(std::size_t& end, std::size_t bytes) {
  end -= std::min(end, bytes);
}

/// The characters after one shape's prefix. Starts come in order, and so do the ends that the
/// shape's maximum allows them: a start inside a run goes on where the one before it stopped, and
/// needs to know only the last digit and the last dots so far.
struct Run {
  std::size_t end = 0;
  std::size_t digit_end = 0;
  std::size_t dot_end = 0;
  std::size_t dot_before_end = 0;  ///< the last but one

  void follow(Set set, std::string_view text, std::size_t start, std::size_t limit) {
    end = std::max(end, start);
    for (; end < limit && in_set(set, text[end]); ++end) {
      if (is_ascii_digit(text[end])) digit_end = end + 1;
      if (text[end] == '.') dot_before_end = std::exchange(dot_end, end + 1);
    }
  }
  void let_go(std::size_t bytes) {
    for (std::size_t* of : {&end, &digit_end, &dot_end, &dot_before_end}) let_go_of(*of, bytes);
  }
};

Verdict match_shape(const Shape& shape, Run& run, std::string_view text, std::size_t at,
                    char before, bool final) {
  if (shape.at_word_start && in_set(Set::kWord, before)) return {};
  if (!begins_with(text.substr(at), shape.prefix, shape.any_case)) return {};
  const std::size_t start = at + shape.prefix.size();
  if (text.size() < start) return final ? Verdict{} : kWaiting;
  const std::size_t limit = start + shape.max;
  run.follow(shape.set, text, start, std::min(text.size(), limit));
  // Keys of one exact length: a longer run is something else.
  const bool exact = shape.min == shape.max;
  if (run.end == text.size() && (run.end < limit || exact) && !final) return kWaiting;
  if (exact && run.end == limit && limit < text.size() && in_set(shape.set, text[limit])) return {};
  const Value value{text.substr(start, run.end - start), run.digit_end > start,
                    run.dot_before_end > start};
  if (value.text.size() < shape.min) return {};
  if (shape.accept != nullptr && !shape.accept(value)) return {};
  return {Verdict::kMatch, shape.keep_prefix ? start : at, run.end};
}

/// The same for what follows the headers of key blocks.
struct KeyRun {
  std::size_t end = 0;
  std::size_t solid_end = 0;      ///< without the blank at its end
  std::size_t footer_end = 0;     ///< of the last kPemEnd found
  std::size_t no_footer_end = 0;  ///< no other begins before this

  void follow(std::string_view text, std::size_t body, std::size_t limit) {
    end = std::max(end, body);
    for (; end < limit && in_pem(text[end]); ++end) {
      if (text[end] != '\n' && text[end] != ' ') solid_end = end + 1;
    }
  }
  /// The end of the first kPemEnd after `body`, 0 when there is none.
  std::size_t next_footer(std::string_view text, std::size_t body) {
    if (footer_end >= body + kPemEnd.size()) return footer_end;
    const std::size_t from = std::max(no_footer_end, body);
    const std::size_t footer = text.substr(0, end).find(kPemEnd, from);
    if (footer == std::string_view::npos) {
      no_footer_end = std::max(from, end + 1 - std::min(end + 1, kPemEnd.size()));
      return 0;
    }
    no_footer_end = footer + 1;
    footer_end = footer + kPemEnd.size();
    return footer_end;
  }
  void let_go(std::size_t bytes) {
    for (std::size_t* of : {&end, &solid_end, &footer_end, &no_footer_end}) let_go_of(*of, bytes);
  }
};

Verdict match_pem(KeyRun& run, std::string_view text, std::size_t at, bool final) {
  const std::string_view block = text.substr(at, limits::kPemBytes);
  if (!begins_with(block, kPemBegin, false)) return {};
  if (block.size() < kPemBegin.size()) return final ? Verdict{} : kWaiting;
  const std::string_view title = block.substr(kPemBegin.size(), kPemTitleBytes);
  const std::size_t title_end = title.find("-----");
  if (title_end == std::string_view::npos) {
    return title.size() == kPemTitleBytes || final ? Verdict{} : kWaiting;
  }
  if (title.substr(0, title_end).find(kPemKind) == std::string_view::npos) return {};
  const std::size_t body = at + kPemBegin.size() + title_end + 5;
  const std::size_t limit = at + block.size();
  const bool more_may_come = block.size() < limits::kPemBytes && !final;
  run.follow(text, body, limit);
  if (const std::size_t footer = run.next_footer(text, body); footer > 0) {
    const std::string_view footer_title = block.substr(footer - at, kPemTitleBytes);
    const std::size_t footer_end = footer_title.find("-----");
    if (footer_end != std::string_view::npos) return {Verdict::kMatch, at, footer + footer_end + 5};
    if (footer_title.size() < kPemTitleBytes && more_may_come) return kWaiting;
  }
  if (run.end == limit && more_may_come) return kWaiting;
  return {Verdict::kMatch, at, std::max(body, run.solid_end)};  // cut off: the rest
}

/// The length of the escape sequence that `text` begins with (ECMA-48 CSI), 0 when it is none, or
/// nothing when more text is needed to tell.
std::optional<std::size_t> colour_length(std::string_view text, bool final) {
  if (text.size() > 1 && text[1] != '[') return 0;
  for (std::size_t i = 2; i < std::min(text.size(), kColourBytesMax); ++i) {
    if (text[i] >= '@' && text[i] <= '~') return i + 1;
    if (text[i] < ' ' || text[i] > '?') return 0;
  }
  if (final || text.size() >= kColourBytesMax) return 0;
  return std::nullopt;
}

/// Escape sequences without anything between them. A secret may begin with the letter at the end of
/// each, so a run has as many starts as sequences.
class EscapeRuns {
 public:
  /// Where the sequences that begin at `begin` end, or nothing when more text is needed to tell.
  /// Beyond `limit` they are not followed to their end.
  std::optional<std::size_t> end_of(std::size_t begin, std::size_t limit, std::string_view text,
                                    bool final) {
    const auto known = std::partition_point(
        runs_.begin(), runs_.end(), [begin](const Stretch& run) { return run.end <= begin; });
    const bool is_known = known != runs_.end() && known->begin <= begin;
    std::size_t end = is_known ? known->end : begin;
    std::optional<std::size_t> length = 0;
    while (end <= limit && end < text.size() && text[end] == kEscape) {
      length = colour_length(text.substr(end), final);
      if (!length || *length == 0) break;
      end += *length;
    }
    if (is_known) known->end = end;
    if (!is_known && end > begin) runs_.insert(known, {begin, end});
    if (!length && text.size() <= limit) return std::nullopt;
    return length ? end : limit + 1;
  }
  void pass(std::size_t position) {
    std::size_t passed = 0;
    while (passed < runs_.size() && runs_[passed].end <= position) ++passed;
    runs_.erase(runs_.begin(), runs_.begin() + static_cast<std::ptrdiff_t>(passed));
  }
  void let_go(std::size_t bytes) {
    pass(bytes);
    for (Stretch& run : runs_) {
      let_go_of(run.begin, bytes);
      let_go_of(run.end, bytes);
    }
  }

 private:
  struct Stretch {
    std::size_t begin;
    std::size_t end;
  };
  std::vector<Stretch> runs_;  ///< in order
};

}  // namespace

// ---- the patterns
// --------------------------------------------------------------------------------

struct Masker::Patterns {
  std::vector<std::string> forms;            ///< sorted, each once
  std::array<std::uint64_t, 1024> filter{};  ///< one bit a hash of three bytes

  Patterns() {
    for (const Shape& shape : kShapes) admit(shape.prefix, shape.any_case);
    admit(kPemBegin, false);
  }
  Patterns(const Patterns&) = delete;
  Patterns& operator=(const Patterns&) = delete;
  ~Patterns() {
    for (std::string& form : forms) wipe(form);
  }

  static std::uint32_t hash(unsigned char a, unsigned char b, unsigned char c) {
    const std::uint32_t three = a | std::uint32_t{b} << 8 | std::uint32_t{c} << 16;
    return three * 0x9e3779b1U >> 16;
  }
  bool may_begin(const char* at) const {
    const std::uint32_t bit =
        hash(static_cast<unsigned char>(at[0]), static_cast<unsigned char>(at[1]),
             static_cast<unsigned char>(at[2]));
    return (filter[bit >> 6] >> (bit & 63) & 1U) != 0;
  }
  void admit(std::string_view prefix, bool any_case) {
    for (unsigned cases = 0; cases < (any_case ? 8U : 1U); ++cases) {
      std::array<unsigned char, 3> bytes{};
      for (unsigned i = 0; i < 3; ++i) {
        bytes[i] = static_cast<unsigned char>(prefix[i]);
        if ((cases >> i & 1U) != 0) bytes[i] = static_cast<unsigned char>(bytes[i] - 'a' + 'A');
      }
      const std::uint32_t bit = hash(bytes[0], bytes[1], bytes[2]);
      filter[bit >> 6] |= std::uint64_t{1} << (bit & 63);
    }
  }

  /// The longest form that begins at `at`.
  Verdict match_form(EscapeRuns& escapes, std::string_view text, std::size_t at, bool final) const {
    auto low = forms.begin();
    auto high = forms.end();
    std::size_t depth = 0;
    std::size_t escape_bytes = Masker::kEscapeBytesMax;  // left
    Verdict best;
    for (std::size_t i = at;;) {
      if (low != high && low->size() == depth && depth > 0) {
        best = {Verdict::kMatch, at, i};
        ++low;
      }
      if (low == high) return best;
      if (i == text.size()) return final ? best : kWaiting;
      const auto c = static_cast<unsigned char>(text[i]);
      const auto below = std::partition_point(low, high, [depth, c](const std::string& form) {
        return static_cast<unsigned char>(form[depth]) < c;
      });
      const auto above = std::partition_point(below, high, [depth, c](const std::string& form) {
        return static_cast<unsigned char>(form[depth]) == c;
      });
      if (below == above && text[i] == kEscape && depth > 0) {
        const auto end = escapes.end_of(i, i + escape_bytes, text, final);
        if (!end) return kWaiting;
        if (*end == i || *end > i + escape_bytes) return best;
        escape_bytes -= *end - i;
        i = *end;
        continue;
      }
      low = below;
      high = above;
      ++depth;
      ++i;
    }
  }
};

// ---- scanning
// ------------------------------------------------------------------------------------

struct MaskingStream::Ahead {
  std::array<Run, kShapes.size()> shapes;
  KeyRun keys;
  EscapeRuns escapes;

  void let_go(std::size_t bytes) {
    for (Run& run : shapes) run.let_go(bytes);
    keys.let_go(bytes);
    escapes.let_go(bytes);
  }
};

/// Finds the spans of one text, beginning with what `stream` already knows of it.
struct MaskScanner {
  MaskingStream& stream;
  std::string_view text;
  bool final;

  /// The number of positions that are decided.
  std::size_t scan() {
    const Masker::Patterns& patterns = *stream.patterns_;
    std::size_t i = 0;
    for (; i + 3 <= text.size(); ++i) {
      const char* at = text.data() + i;
      if (patterns.may_begin(at) || at[1] == kEscape || at[2] == kEscape) {
        if (!look(i)) return i;
      }
    }
    for (; i < text.size(); ++i) {
      if (!look(i)) return i;
    }
    return text.size();
  }

  /// False when the text ends too early.
  bool look(std::size_t i) {
    MaskingStream::Ahead& ahead = *stream.ahead_;
    std::array<MaskingStream::Span, kShapes.size() + 2> found;
    std::size_t count = 0;
    const auto note = [&found, &count](const Verdict& verdict) {
      if (verdict.kind == Verdict::kMatch) found[count++] = {verdict.begin, verdict.end};
      return verdict.kind != Verdict::kWait;
    };
    ahead.escapes.pass(i);
    if (!note(stream.patterns_->match_form(ahead.escapes, text, i, final))) return false;
    if (text[i] == kPemBegin[0] && !note(match_pem(ahead.keys, text, i, final))) return false;
    const char before = i == 0 ? stream.before_ : text[i - 1];
    for (std::size_t k = 0; k < kShapes.size(); ++k) {
      const Shape& shape = kShapes[k];
      if ((shape.any_case ? ascii_lower(text[i]) : text[i]) != shape.prefix[0]) continue;
      if (!note(match_shape(shape, ahead.shapes[k], text, i, before, final))) return false;
    }
    for (std::size_t k = 0; k < count; ++k) hide(found[k]);
    return true;
  }

  void hide(const MaskingStream::Span& span) {
    std::vector<MaskingStream::Span>& spans = stream.spans_;
    if (!spans.empty() && span.begin >= spans.back().begin && span.begin <= spans.back().end) {
      spans.back().end = std::max(spans.back().end, span.end);
    } else {
      spans.push_back(span);
    }
  }
};

Masker::Masker() : patterns_(std::make_shared<const Patterns>()) {}

Masker::Masker(const std::vector<const Secret*>& secrets) {
  auto patterns = std::make_shared<Patterns>();
  std::set<std::string> forms;
  for (const Secret* secret : secrets) {
    const std::string_view text = secret->reveal();
    if (text.size() < limits::kSecretBytesMin) {
      throw SecurityError("a secret shorter than " + std::to_string(limits::kSecretBytesMin) +
                          " bytes cannot be masked");
    }
    if (text.find_first_of(std::string_view("\n\r\0", 3)) != std::string_view::npos) {
      throw SecurityError(
          "a secret over more than one line cannot be masked; give it line by line");
    }
    add_secret_forms(text, forms);
  }
  patterns->forms.reserve(forms.size());
  while (!forms.empty()) {
    auto node = forms.extract(forms.begin());
    patterns->admit(node.value(), false);
    patterns->forms.push_back(node.value());
    wipe(node.value());
  }
  patterns_ = std::move(patterns);
}

Masker::Masker(Masker&&) noexcept = default;
Masker& Masker::operator=(Masker&&) noexcept = default;
Masker::~Masker() = default;

std::string Masker::mask(std::string_view text) const {
  MaskingStream stream(*this);
  std::size_t done = 0;
  return stream.advance(text, true, done);
}

MaskingStream::MaskingStream(const Masker& masker)
    : patterns_(masker.patterns_), ahead_(std::make_unique<Ahead>()) {}
MaskingStream::MaskingStream(MaskingStream&&) noexcept = default;
MaskingStream& MaskingStream::operator=(MaskingStream&&) noexcept = default;
MaskingStream::~MaskingStream() = default;

/// Lets go of the decided beginning of `text`: `done` bytes of it.
std::string MaskingStream::advance(std::string_view text, bool final, std::size_t& done) {
  done = MaskScanner{*this, text, final}.scan();
  std::sort(spans_.begin(), spans_.end(),
            [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::string out;
  out.reserve(done);
  std::size_t at = 0;
  std::size_t kept = 0;
  for (const Span& span : spans_) {
    if (span.begin < done) {
      if (span.begin > at) {
        out.append(text.substr(at, span.begin - at));
        after_mask_ = false;
      }
      if (!after_mask_) out.append(kMask);
      after_mask_ = true;
      at = std::max(at, std::min(span.end, done));
    }
    if (span.end <= done) continue;
    const Span rest{std::max(span.begin, done) - done, span.end - done};
    if (kept > 0 && rest.begin <= spans_[kept - 1].end) {
      spans_[kept - 1].end = std::max(spans_[kept - 1].end, rest.end);
    } else {
      spans_[kept++] = rest;
    }
  }
  spans_.resize(kept);
  if (at < done) {
    out.append(text.substr(at, done - at));
    after_mask_ = false;
  }
  if (done > 0) before_ = text[done - 1];
  ahead_->let_go(done);
  return out;
}

std::string MaskingStream::push(std::string_view piece) {
  held_.append(piece);
  std::size_t done = 0;
  std::string out = advance(held_, false, done);
  held_.erase(0, done);
  return out;
}

std::string MaskingStream::finish() {
  std::size_t done = 0;
  std::string out = advance(held_, true, done);
  wipe(held_);
  spans_.clear();
  before_ = '\n';
  after_mask_ = false;
  return out;
}

std::string Masker::mask_head(std::string_view text, std::size_t bytes_max) const {
  if (text.size() <= bytes_max) return mask(text);
  return MaskingStream(*this).push(text.substr(0, bytes_max));
}

}  // namespace necrocode
