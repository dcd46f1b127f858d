// Text made to slow the masker down: its work and what a stream holds stay in proportion, and
// what it finds is what a matcher without any memory finds.
#include <gmock/gmock.h>

#include <algorithm>
#include <ctime>
#include <random>

#include "necrocode/base/limits.hpp"
#include "necrocode/base/masking.hpp"
#include "necrocode/base/text.hpp"
#include "unit/base/masking_fixture.hpp"

namespace necrocode {
namespace {

using test::masker_for;
// Put together here, so that no scanner takes this file for a leak.
const std::string kPemHeader = std::string("-----BEGIN PRIV") + "ATE KEY-----";
const std::string kPemFooter = std::string("-----END PRIV") + "ATE KEY-----";
const std::string kSecret = "mzmssm-[zm";  // like escape sequences, never in base64 or hex

std::string repeated(std::string_view text, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out.append(text);
  return out;
}

// ---- the reference: every position on its own, every rule as masking.hpp's users know it

constexpr std::string_view kAlnum =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

struct Rule {
  std::string prefix;
  std::string more;  // beside kAlnum
  std::size_t min;
  std::size_t max;
  bool at_word_start;
  std::size_t dots;
  bool digit;
};
const std::vector<Rule> kRules = {
    {"ghp_", "", 30, 255, false, 0, false},
    {"github_pat_", "_", 22, 255, false, 0, false},
    {"glpat-", "_-", 20, 255, false, 0, false},
    {"sk-", "_-", 20, 255, true, 0, true},
    {"AIza", "_-", 35, 35, true, 0, false},
    {"xoxb-", "-", 10, 255, false, 0, false},
    {"hf_", "", 30, 255, true, 0, true},
    {"eyJ", "_-.", 30, limits::kTokenShapeBytes, true, 2, true},
    {"Bearer ", "-._~+/=", 16, limits::kTokenShapeBytes, true, 0, true},
};

std::size_t rule_end(const Rule& rule, const std::string& text, std::size_t at) {
  if (text.compare(at, rule.prefix.size(), rule.prefix) != 0) return 0;
  if (rule.at_word_start && at > 0 && (is_ascii_alnum(text[at - 1]) || text[at - 1] == '_')) {
    return 0;
  }
  const std::size_t begin = at + rule.prefix.size();
  const std::string set = std::string(kAlnum) + rule.more;
  const std::size_t run = std::min(text.find_first_not_of(set, begin), text.size()) - begin;
  if (rule.min == rule.max && run > rule.max) return 0;
  const std::string value = text.substr(begin, std::min(run, rule.max));
  const auto dots = static_cast<std::size_t>(std::count(value.begin(), value.end(), '.'));
  if (value.size() < rule.min || dots < rule.dots) return 0;
  if (rule.digit && std::none_of(value.begin(), value.end(), is_ascii_digit)) return 0;
  return begin + value.size();
}

std::size_t pem_end(const std::string& text, std::size_t at) {
  constexpr std::size_t kTitle = 48;
  if (text.compare(at, 11, "-----BEGIN ") != 0) return 0;
  const std::string title = text.substr(at + 11, kTitle);
  const std::size_t dashes = title.find("-----");
  if (dashes == std::string::npos) return 0;
  if (title.substr(0, dashes).find("PRIVATE KEY") == std::string::npos) return 0;
  const std::string block = text.substr(at, limits::kPemBytes);
  const std::size_t body = 11 + dashes + 5;
  const std::string set = std::string(kAlnum) + " \t\r\n+/=-\\\"',:;|>";
  std::size_t end = std::min(block.find_first_not_of(set, body), block.size());
  const std::size_t footer = block.find("-----END ", body);
  if (footer < end) {
    const std::size_t close = block.substr(footer + 9, kTitle).find("-----");
    if (close != std::string::npos) return at + footer + 9 + close + 5;
  }
  while (end > body && (block[end - 1] == '\n' || block[end - 1] == ' ')) --end;
  return at + end;
}

std::size_t secret_end(std::string_view secret, const std::string& text, std::size_t at) {
  std::size_t i = at;
  std::size_t escapes = 0;
  for (std::size_t k = 0; k < secret.size();) {
    if (i >= text.size()) return 0;
    if (text[i] == secret[k]) {
      ++k;
      ++i;
      continue;
    }
    if (k == 0 || text.compare(i, 2, "\x1b[") != 0) return 0;
    std::size_t end = i + 2;
    while (end < text.size() && text[end] >= ' ' && text[end] <= '?') ++end;
    if (end >= text.size() || text[end] < '@' || text[end] > '~' || end - i >= 32) return 0;
    escapes += end + 1 - i;
    if (escapes > Masker::kEscapeBytesMax) return 0;
    i = end + 1;
  }
  return i;
}

std::string reference_mask(const std::string& text) {
  std::vector<bool> hidden(text.size());
  const auto hide = [&hidden](std::size_t begin, std::size_t end) {
    for (; begin < end; ++begin) hidden[begin] = true;
  };
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const Rule& rule : kRules) {
      const bool keep = rule.prefix.ends_with(' ');
      hide(at + (keep ? rule.prefix.size() : 0), rule_end(rule, text, at));
    }
    hide(at, pem_end(text, at));
    hide(at, secret_end(kSecret, text, at));
  }
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!hidden[i]) out += text[i];
    if (hidden[i] && (i == 0 || !hidden[i - 1])) out += "***";
  }
  return out;
}

std::string random_text(std::mt19937& random, const std::vector<std::string>& parts,
                        std::size_t count) {
  std::string text;
  for (std::size_t i = 0; i < count; ++i) text += parts[random() % parts.size()];
  return text;
}

void expect_as_the_reference(const std::vector<std::string>& parts, std::size_t texts,
                             std::size_t count) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const Masker masker = masker_for({kSecret});
  for (std::size_t n = 0; n < texts; ++n) {
    const std::string text = random_text(random, parts, random() % count + 1);
    const std::string expected = reference_mask(text);
    ASSERT_EQ(masker.mask(text), expected) << text;
    MaskingStream stream(masker);
    std::string out;
    const std::size_t piece_max = random() % 2 == 0 ? 8 : 2000;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t piece = random() % piece_max + 1;
      out += stream.push(text.substr(i, piece));
      i += piece;
    }
    out += stream.finish();
    ASSERT_EQ(out, expected) << text;
  }
}

TEST(MaskerReference, RandomTokenShapesAreHiddenAsOnTheirOwn) {
  const std::vector<std::string> parts = {
      "-",           "-",    ".", "eyJ", "-eyJ",    "sk-",   "xoxb-",
      "glpat-",      "AIza", "_", "hf_", "ghp_",    "12345", "abcdef",
      "github_pat_", "-sk-", " ", "\n",  "Bearer ", "/=+",   "!"};
  expect_as_the_reference(parts, 3000, 60);
}

TEST(MaskerReference, RandomTokensLongerThanTheirMaximumAreHiddenAsOnTheirOwn) {
  const std::vector<std::string> parts = {"-eyJ",
                                          "-eyJ",
                                          "-sk-",
                                          "xoxb-",
                                          "glpat-",
                                          "Bearer ",
                                          "-AIza",
                                          ".",
                                          "7",
                                          " ",
                                          std::string(35, 'k'),
                                          std::string(200, 'q'),
                                          std::string(254, 'r'),
                                          std::string(2500, 's'),
                                          std::string(8187, 't')};
  expect_as_the_reference(parts, 60, 40);
}

TEST(MaskerReference, RandomKeyBlocksAreHiddenAsOnTheirOwn) {
  const std::vector<std::string> parts = {kPemHeader,
                                          kPemHeader,
                                          kPemFooter,
                                          "-----END ",
                                          "-----BEGIN ",
                                          "-----",
                                          "-",
                                          "\n",
                                          "  \n ",
                                          std::string(50, 'a'),
                                          std::string(300, ' '),
                                          std::string(5000, 'b'),
                                          std::string(5400, ' '),
                                          "!"};
  expect_as_the_reference(parts, 60, 40);
  const std::vector<std::string> small(parts.begin(), parts.end() - 4);
  expect_as_the_reference(small, 1000, 20);
}

TEST(MaskerReference, RandomEscapesInsideASecretAreHiddenAsOnTheirOwn) {
  std::vector<std::string> parts = {"m", "z", "mz", "\x1b", "[", "zm", "\x1b[", "0", ";"};
  for (std::size_t i = 0; i < kSecret.size(); ++i) {
    std::string coloured = kSecret;
    parts.push_back(coloured.insert(i, "\x1b[m\x1b[0;1m"));
    parts.push_back(kSecret.substr(0, i));
    parts.push_back(kSecret.substr(i));
    parts.push_back(repeated("\x1b[m", 60 * i));
  }
  expect_as_the_reference(parts, 2000, 20);
}

// ---- work

double cpu_seconds(const Masker& masker, std::string_view text, std::size_t piece) {
  const std::clock_t begin = std::clock();
  MaskingStream stream(masker);
  for (std::size_t i = 0; i < text.size(); i += piece) stream.push(text.substr(i, piece));
  stream.finish();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

const std::vector<std::string>& hostile_pieces() {
  static const std::vector<std::string> pieces = {
      "-eyJ",
      "-eyJ.",
      "-eyJ1..",
      "sk-",
      "-sk-1",
      "xoxb-",
      "glpat-",
      "github_pat_",
      "-AIza",
      "ghp_",
      "npm_",
      "hf_",
      "AKIA-",
      "bearer ",
      "basic ",
      "Basic abcd",
      "-----BEGIN ",
      kPemHeader,
      kPemHeader + "\n-----END ",
      repeated(kPemHeader, 2700) + std::string(13000, ' ') + "!",
      "-",
      "\x1b[m",
      "\x1b[1m",
      "\x1b[",
      "\x1b",
      repeated("\x1b[m", 900) + "z",
      repeated("\x1b[m", 300) + "zm",
  };
  return pieces;
}

/// CPU time against that of plain text, in the same process. Scanning again costs a factor of
/// hundreds; what each position costs that may begin something, of ten. A neighbour on the machine
/// may disturb one measurement, not all.
void expect_work_in_proportion(std::size_t bytes, std::size_t piece) {
  constexpr double kFactorMax = 40;
  const Masker masker = masker_for({kSecret, "a-secret-of-no-interest"});
  const std::string plain = repeated("2025-01-02 INFO the quick brown fox: 42 jumps\n", bytes);
  for (const std::string& hostile : hostile_pieces()) {
    const std::string text = repeated(hostile, bytes);
    double factor = kFactorMax;
    for (int tries = 0; tries < 3 && factor >= kFactorMax; ++tries) {
      factor = cpu_seconds(masker, text, piece) / cpu_seconds(masker, plain, piece);
    }
    EXPECT_LT(factor, kFactorMax) << printable(hostile.substr(0, 60));
  }
}

TEST(Masker, HostileTextCostsASmallMultipleOfPlainText) {
  expect_work_in_proportion(2 * 1024 * 1024, std::string::npos / 2);
}

TEST(MaskingStream, HostileTextInPiecesCostsASmallMultipleOfPlainText) {
  expect_work_in_proportion(512 * 1024, 64);
}

// ---- what a stream holds

TEST(MaskingStream, HoldsNoMoreThanItsBound) {
  const Masker masker = masker_for({kSecret});
  std::vector<std::string> pieces = hostile_pieces();
  pieces.insert(pieces.end(), {"Bearer " + std::string(10000, 'x'), "k", "m\x1b[m"});
  for (const std::string& hostile : pieces) {
    for (const std::size_t step : {1, 1000}) {
      MaskingStream stream(masker);
      const std::string text =
          hostile == "k" ? kPemHeader + std::string(100000, 'k') : repeated(hostile, 100000);
      for (std::size_t i = 0; i < text.size(); i += step) {
        stream.push(std::string_view(text).substr(i, step));
        ASSERT_LE(stream.held_bytes(), limits::kPemBytes) << printable(hostile.substr(0, 60));
      }
    }
  }
}

TEST(MaskingStream, EscapesInsideASecretAreFollowedUpToTheirBound) {
  const Masker masker = masker_for({kSecret});
  const std::string head = kSecret.substr(0, 5);
  const std::string tail = kSecret.substr(5);
  const std::string most = repeated("\x1b[0m", Masker::kEscapeBytesMax);
  ASSERT_EQ(most.size(), Masker::kEscapeBytesMax);
  EXPECT_EQ(masker.mask("<" + head + most + tail + ">"), "<***>");
  const std::string over = "<" + head + most + "\x1b[m" + tail + ">";
  EXPECT_EQ(masker.mask(over), over);
  const std::string in_two_places =
      "<" + head + most + tail.substr(0, 2) + "\x1b[m" + tail.substr(2) + ">";
  EXPECT_EQ(masker.mask(in_two_places), in_two_places);

  MaskingStream stream(masker);
  std::size_t held_max = 0;
  std::size_t let_go = stream.push("m").size();
  for (int i = 0; i < 10000; ++i) {
    let_go += stream.push("\x1b[0m").size();
    held_max = std::max(held_max, stream.held_bytes());
  }
  EXPECT_LT(held_max, kSecret.size() + Masker::kEscapeBytesMax);
  EXPECT_GT(let_go, 30000U);
}

}  // namespace
}  // namespace necrocode
