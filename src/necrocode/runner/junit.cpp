#include "necrocode/runner/junit.hpp"

#include <algorithm>
#include <pugixml.hpp>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::runner {
namespace {

/// Deeper suites are no one's; shallow enough to recurse.
constexpr std::size_t kDepth = 32;
/// A text element of 20,000 failing cases; an element takes 64 bytes of memory.
constexpr std::ptrdiff_t kElements = 500'000;
constexpr std::size_t kMessageBytes = 2 * limits::kKiB;
constexpr std::string_view kBetween = " > ";

std::string printable_lines(const std::string& text) {
  std::vector<std::string> lines;
  for (std::string_view line : split(text, '\n')) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(printable(replace_all(std::string(line), "\t", "    ")));
  }
  return join(lines, "\n");
}

/// The text of all its pieces: a tool may break it up into several CDATA sections.
std::string text_of(pugi::xml_node node) {
  std::string text;
  for (const pugi::xml_node piece : node) {
    if (piece.type() == pugi::node_pcdata || piece.type() == pugi::node_cdata)
      text += piece.value();
  }
  return text;
}

class Reader {
 public:
  Reader(const Masker& masker, std::size_t cases_max) : masker_(masker), cases_max_(cases_max) {}

  void read_suites(pugi::xml_node above, const std::string& suite, std::size_t depth) {
    for (const pugi::xml_node node : above.children()) {
      const std::string_view tag = node.name();
      if (tag == "testcase") {
        add(node, suite);
      } else if (tag == "testsuite" || tag == "testsuites") {
        if (depth == kDepth) {
          ++report_.left_out;
          continue;
        }
        // The name of the whole is the tool's ("AllTests"), and no place in it.
        const std::string name = tag == "testsuite" ? name_of(node, "name") : "";
        read_suites(node,
                    suite.empty() || name.empty()
                        ? suite + name
                        : shorten(suite + std::string(kBetween) + name, kJunitNameBytes),
                    depth + 1);
      }
    }
  }

  JunitReport take() { return std::move(report_); }

 private:
  void add(pugi::xml_node node, const std::string& suite) {
    if (report_.cases.size() >= cases_max_) {
      ++report_.left_out;
      return;
    }
    TestCase& one = report_.cases.emplace_back();
    one.suite = suite;
    one.classname = name_of(node, "classname");
    one.name = name_of(node, "name");
    one.file = name_of(node, "file");
    const auto seconds = parse_double(node.attribute("time").value());
    one.seconds = seconds ? std::clamp(*seconds, 0.0, 1e9) : 0;
    read_outcome(node, one);
  }

  void read_outcome(pugi::xml_node node, TestCase& one) {
    one.outcome = told_by_attributes(node);
    pugi::xml_node reason;
    for (const auto& [tag, outcome] : {std::pair{"skipped", TestCase::Outcome::kSkipped},
                                       std::pair{"error", TestCase::Outcome::kError},
                                       std::pair{"failure", TestCase::Outcome::kFailed}}) {
      if (const pugi::xml_node child = node.child(tag)) {
        reason = child;
        one.outcome = outcome;
      }
    }
    const std::string message = clean(reason.attribute("message").value(), kMessageBytes);
    if (was_not_run_by_ctest(node, message)) one.outcome = TestCase::Outcome::kError;
    if (one.outcome == TestCase::Outcome::kPassed) return;
    one.message = message;
    if (!one.failed()) return;
    std::string text;
    for (const pugi::xml_node child : node.children(reason.name())) text += text_of(child) + "\n";
    text = clean(text, kJunitTextBytes);
    if (trim(one.message).empty()) one.message = shorten(text.substr(0, text.find('\n')), 200);
    // CTest keeps the reason in the output, and so does who only printed it.
    for (const char* output : {"system-out", "system-err"}) {
      if (text.empty()) text = clean(text_of(node.child(output)), kJunitTextBytes);
    }
    one.text = std::move(text);
  }

  // GoogleTest, CTest and others say it here, some of them nowhere else.
  static TestCase::Outcome told_by_attributes(pugi::xml_node node) {
    for (const char* name : {"result", "status"}) {
      const std::string told = ascii_lower(node.attribute(name).value());
      const auto is = [&told](std::initializer_list<std::string_view> words) {
        return std::find(words.begin(), words.end(), told) != words.end();
      };
      if (is({"fail", "failed", "failure"})) return TestCase::Outcome::kFailed;
      if (is({"error"})) return TestCase::Outcome::kError;
      if (is({"notrun", "skipped", "suppressed", "disabled", "ignored"}))
        return TestCase::Outcome::kSkipped;
    }
    return TestCase::Outcome::kPassed;
  }

  // To CTest (cmCTestTestHandler) a test without its program has failed; its report says skipped.
  static bool was_not_run_by_ctest(pugi::xml_node node, std::string_view message) {
    return std::string_view(node.attribute("status").value()) == "notrun" && !message.empty() &&
           !node.attribute("result") && !message.starts_with("SKIP_");
  }

  // Masked before anything is cut or escaped: a part of a secret is not known as one. Escaped when
  // it is short: that takes half a second a megabyte.
  std::string name_of(pugi::xml_node node, const char* attribute) {
    return shorten(printable(shorten(masked(node.attribute(attribute).value()), kJunitNameBytes)),
                   kJunitNameBytes);
  }
  std::string clean(std::string_view text, std::size_t bytes) {
    return printable_lines(to_valid_utf8(head_and_tail(masked(trim(text)), bytes)));
  }
  // pytest writes the escape of colours, which XML has no character for, as "#x1B"; the masker
  // knows a secret with colours in it by the real one.
  std::string masked(std::string_view text) {
    return to_valid_utf8(masker_.mask(replace_all(std::string(text), "#x1B[", "\x1b[")));
  }

  const Masker& masker_;
  const std::size_t cases_max_;
  JunitReport report_;
};

}  // namespace

std::string TestCase::title() const {
  std::string whole;
  std::string_view last;
  for (const std::string_view part :
       {std::string_view(suite), std::string_view(classname), std::string_view(name)}) {
    if (part.empty() || part == last) continue;
    if (!whole.empty()) whole += kBetween;
    whole += part;
    last = part;
  }
  return whole.empty() ? "(no name)" : whole;
}

JunitReport parse_junit(std::string_view xml, const Masker& masker, std::size_t cases_max) {
  if (xml.size() > kJunitFileBytes || std::count(xml.begin(), xml.end(), '<') > kElements) {
    throw InvalidResponse("the JUnit report is longer than 8 MiB or 500,000 elements");
  }
  pugi::xml_document document;
  // Comments, processing instructions and the document type are skipped over.
  const pugi::xml_parse_result parsed = document.load_buffer(
      xml.data(), xml.size(), pugi::parse_cdata | pugi::parse_escapes | pugi::parse_eol);
  if (!parsed) {
    throw InvalidResponse("the JUnit report is no XML: " + std::string(parsed.description()) +
                          " at byte " + std::to_string(parsed.offset));
  }
  Reader reader(masker, cases_max);
  reader.read_suites(document, "", 0);
  return reader.take();
}

std::string xml_escape(std::string_view text) {
  std::string escaped;
  const std::string valid = to_valid_utf8(text);
  for (std::size_t at = 0; at < valid.size(); ++at) {
    const char c = valid[at];
    const std::string_view rest = std::string_view(valid).substr(at);
    if (c == '&') {
      escaped += "&amp;";
    } else if (c == '<') {
      escaped += "&lt;";
    } else if (c == '>') {
      escaped += "&gt;";
    } else if (c == '"') {
      escaped += "&quot;";
    } else if (c == '\n' || c == '\t' || c == '\r') {
      escaped += "&#" + std::to_string(static_cast<int>(c)) + ";";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      escaped += "\uFFFD";
    } else if (rest.starts_with("\xEF\xBF\xBE") || rest.starts_with("\xEF\xBF\xBF")) {
      escaped += "\uFFFD";  // U+FFFE and U+FFFF
      at += 2;
    } else {
      escaped += c;
    }
  }
  return escaped;
}

}  // namespace necrocode::runner
