// parse_code_changes: lenient about what stands around the JSON, strict about the JSON.
#include <gmock/gmock.h>

#include "necrocode/base/errors.hpp"
#include "necrocode/base/limits.hpp"
#include "necrocode/llm/model.hpp"

namespace necrocode::llm {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<CodeChange> parse(std::string_view text) {
  std::string explanation;
  return parse_code_changes(text, explanation);
}

// what() of the ImplementationError that `text` brings.
std::string rejection(std::string_view text) {
  try {
    parse(text);
  } catch (const ImplementationError& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << text.substr(0, 200);
  return {};
}

std::string refusal(std::string_view path) {
  const Json change =
      Json::object({{"file_path", path}, {"operation", "create"}, {"content", "x"}});
  try {
    parse(Json::object({{"code_changes", Json(Json::Array{change})}}).dump());
  } catch (const SecurityError& error) {
    return error.what();
  } catch (const RunnerError& error) {
    return std::string("another error: ") + error.what();
  }
  return "accepted";
}

const std::string kCreate = R"({"code_changes":[{"file_path":"a.txt","operation":"create",)"
                            R"("content":"one {two} \"three\" ```"}],"explanation":"why"})";

TEST(ParseCodeChanges, BareObjectIsRead) {
  std::string explanation;
  const auto changes = parse_code_changes(kCreate, explanation);
  ASSERT_EQ(changes.size(), 1u);
  EXPECT_EQ(changes[0].file_path, "a.txt");
  EXPECT_EQ(changes[0].operation, Operation::kCreate);
  EXPECT_EQ(changes[0].content, "one {two} \"three\" ```");
  EXPECT_TRUE(changes[0].edits.empty());
  EXPECT_EQ(explanation, "why");
}

TEST(ParseCodeChanges, WrappingsOfModelsAreTakenOff) {
  for (const std::string& text : {
           "\xEF\xBB\xBF" + kCreate,
           "```json\n" + kCreate + "\n```",
           "```\n" + kCreate + "\n```\n",
           "Sure! Here is {the change}, see `f() { return {\"a\"}; }`:\n\n" + kCreate +
               "\nAnything else? {}",
           "  \r\n" + kCreate + "\r\n",
           "{\"thought\": \"not the answer\"}\n" + kCreate,
           "In the form {\"code_changes\":[...]}:\n" + kCreate,
           "An unclosed { \"quote, then\n" + kCreate,
           kCreate + "\n" + kCreate,
       }) {
    const auto changes = parse(text);
    ASSERT_EQ(changes.size(), 1u) << text;
    EXPECT_EQ(changes[0].content, "one {two} \"three\" ```");
  }
}

TEST(ParseCodeChanges, EachOperationTakesItsParts) {
  const auto changes = parse(R"({"code_changes":[
    {"file_path":"./new/a.py","operation":"create","content":"","edits":null},
    {"file_path":"b.py","operation":"modify","content":"all","edits":[]},
    {"file_path":"c.py","operation":"modify","content":null,
     "edits":[{"search":"x","replace":""},{"search":"y","replace":"z"}]},
    {"file_path":"d.py","operation":"delete","content":null,"edits":null,"diff":null,
     "note":"unknown keys are ignored"},
    {"file_path":"e.py","operation":"modify","content":null,"edits":[],"diff":"@@\n-x\n+y\n"},
    {"file_path":"f.py","operation":"modify","content":"all","diff":""}]})");
  ASSERT_EQ(changes.size(), 6u);
  EXPECT_EQ(changes[4].diff, "@@\n-x\n+y\n");
  EXPECT_EQ(changes[5].content, "all");
  EXPECT_EQ(changes[0].file_path, "new/a.py");
  EXPECT_EQ(changes[0].content, "");
  EXPECT_EQ(changes[1].content, "all");
  EXPECT_FALSE(changes[2].content);
  ASSERT_EQ(changes[2].edits.size(), 2u);
  EXPECT_EQ(changes[2].edits[1].search, "y");
  EXPECT_EQ(changes[2].edits[1].replace, "z");
  EXPECT_EQ(changes[3].operation, Operation::kDelete);
}

TEST(ParseCodeChanges, AnswerWithoutChangesIsRejected) {
  EXPECT_THAT(rejection(""), HasSubstr("no JSON object"));
  EXPECT_THAT(rejection("I cannot do that."), HasSubstr("no JSON object in it"));
  EXPECT_THAT(rejection(R"({"changes":[]})"), HasSubstr("has no \"code_changes\""));
  EXPECT_THAT(rejection(R"({"code_changes":[]})"), HasSubstr("changes nothing"));
  EXPECT_THAT(rejection(R"({"code_changes":{"a":1}})"), HasSubstr("must be an array"));
  EXPECT_THAT(rejection(R"(["code_changes"])"), HasSubstr("no JSON object"));
}

TEST(ParseCodeChanges, BrokenJsonIsRejectedWithItsPlace) {
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"a",}]})"), HasSubstr("not valid JSON"));
  EXPECT_THAT(rejection(kCreate.substr(0, kCreate.size() - 20)), HasSubstr("cut off"));
  EXPECT_THAT(rejection("{\"code_changes\":[{\"file_path\":\"a\nb\"}]}"),
              HasSubstr("not valid JSON"));
}

TEST(ParseCodeChanges, TwoDifferentAnswersAreAmbiguous) {
  const std::string other =
      R"({"code_changes":[{"file_path":"b.txt","operation":"create","content":"2"}]})";
  EXPECT_THAT(rejection(kCreate + "\nor\n" + other), HasSubstr("two different"));
}

TEST(ParseCodeChanges, MalformedChangesRejectTheWholeAnswerAndNameAllDefects) {
  const std::string what = rejection(R"({"code_changes":[
    {"file_path":"good.py","operation":"create","content":"x"},
    {"file_path":"b.py","operation":"rename","content":"x"},
    {"file_path":"c.py","operation":"create"},
    {"file_path":"d.py","operation":"modify"},
    {"file_path":"e.py","operation":"modify","content":"x","edits":[{"search":"a","replace":"b"}]},
    {"file_path":"f.py","operation":"modify","edits":[{"search":"","replace":"b"},{"search":"a"}]},
    {"file_path":"g.py","operation":"delete","content":"x"},
    {"file_path":"./good.py","operation":"delete"},
    {"operation":"create","content":"x"},
    {"file_path":"h.py","content":"x"},
    {"file_path":"i.py","operation":"create","content":7},
    "text",
    {"file_path":"j.py","operation":"modify","content":"x","diff":"@@\n-x\n+y\n"},
    {"file_path":"k.py","operation":"create","diff":"@@\n+y\n"},
    {"file_path":"l.py","operation":"delete","diff":"@@\n-y\n"},
    {"file_path":"m.py","operation":"modify","diff":"@@ -1,2 +1 @@\n-x\n+y\n"},
    {"file_path":"n.py","operation":"modify","diff":"--- a/o.py\n+++ b/o.py\n@@\n-x\n+y\n"}]})");
  EXPECT_THAT(what, Not(HasSubstr("/code_changes/0")));
  EXPECT_THAT(
      what,
      HasSubstr("/code_changes/1/operation: must be create, modify or delete, not \"rename\""));
  EXPECT_THAT(what, HasSubstr("/code_changes/2/content: is required"));
  EXPECT_THAT(what, HasSubstr("/code_changes/3/content: content, edits or a diff"));
  EXPECT_THAT(what, HasSubstr("/code_changes/4/edits: content, edits and diff exclude"));
  EXPECT_THAT(what, HasSubstr("/code_changes/5/edits/0/search: must not be empty"));
  EXPECT_THAT(what, HasSubstr("/code_changes/5/edits/1/replace: is required"));
  EXPECT_THAT(what, HasSubstr("/code_changes/6/operation: delete takes neither"));
  EXPECT_THAT(what, HasSubstr("/code_changes/7/file_path: \"good.py\" is named twice"));
  EXPECT_THAT(what, HasSubstr("/code_changes/8/file_path: must be a string, not null"));
  EXPECT_THAT(what, HasSubstr("/code_changes/9/operation: is required"));
  EXPECT_THAT(what, HasSubstr("/code_changes/10/content: must be a string"));
  EXPECT_THAT(what, HasSubstr("/code_changes/11: must be an object"));
  EXPECT_THAT(what, HasSubstr("/code_changes/12/diff: content, edits and diff exclude"));
  EXPECT_THAT(what, HasSubstr("/code_changes/13/content: is required"));
  EXPECT_THAT(what, HasSubstr("/code_changes/14/operation: delete takes neither"));
  EXPECT_THAT(what, HasSubstr("/code_changes/15/diff: line 1 of the diff tells 2 old"));
  EXPECT_THAT(what, HasSubstr("/code_changes/16/diff: line 1 of the diff names another file"));
}

TEST(ParseCodeChanges, BadEncodingsAreRejected) {
  const auto with = [](const std::string& content) {
    return R"({"code_changes":[{"file_path":"a","operation":"create","content":")" + content +
           R"("}]})";
  };
  EXPECT_THAT(rejection(with("nul \\u0000")), HasSubstr("NUL"));
  EXPECT_THAT(rejection(with("lone \\ud800 surrogate")), HasSubstr("not valid JSON"));
  EXPECT_THAT(rejection(with("bad \xff utf-8")), HasSubstr("not valid JSON"));
  EXPECT_EQ(parse(with("pair \\ud83d\\ude00"))[0].content, "pair \xF0\x9F\x98\x80");
}

TEST(ParseCodeChanges, PathsAreComparedByteByByte) {
  const auto with = [](const std::string& a, const std::string& b) {
    return R"({"code_changes":[{"file_path":")" + a + R"(","operation":"delete"},{"file_path":")" +
           b + R"(","operation":"create","content":""}]})";
  };
  EXPECT_THAT(rejection(with("a/b", "a/b")), HasSubstr("named twice"));
  EXPECT_THAT(rejection(with("a/b", "./././a/b")), HasSubstr("named twice"));
  EXPECT_EQ(parse(with("Makefile", "makefile")).size(), 2u);  // how a file's case is changed
  EXPECT_EQ(parse(with("caf\xC3\xA9", "cafe\xCC\x81")).size(), 2u);
}

TEST(ParseCodeChanges, LimitsAreHeld) {
  Json list = Json::array();
  for (std::size_t i = 0; i <= limits::kCodeChanges; ++i) {
    list.push_back(Json::object(
        {{"file_path", "f" + std::to_string(i)}, {"operation", "create"}, {"content", ""}}));
  }
  EXPECT_THAT(rejection(Json::object({{"code_changes", list}}).dump()),
              HasSubstr("more than 1000"));
  list.items().pop_back();
  EXPECT_EQ(parse(Json::object({{"code_changes", list}}).dump()).size(), limits::kCodeChanges);

  const std::string large(limits::kCodeChangeFileBytes + 1, 'x');
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"a","operation":"create","content":")" +
                        large + "\"}]}"),
              HasSubstr("at most 8388608 bytes"));
  EXPECT_THAT(rejection(std::string(limits::kModelAnswerBytes - kCreate.size() + 1, ' ') + kCreate),
              HasSubstr("longer than 16777216 bytes"));
  EXPECT_EQ(parse(std::string(limits::kModelAnswerBytes - kCreate.size(), ' ') + kCreate).size(),
            1u);
  std::string edits = R"({"search":"a","replace":"b"})";
  for (std::size_t i = 0; i < limits::kCodeEdits; ++i) edits += R"(,{"search":"a","replace":"b"})";
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"a","operation":"modify","edits":[)" +
                        edits + "]}]}"),
              HasSubstr("/code_changes/0/edits"));
}

TEST(ParseCodeChanges, DeepNestingEndsSoonWithAnError) {
  std::string deep = R"({"code_changes":)";
  for (int i = 0; i < 200'000; ++i) deep += R"({"a":)";
  EXPECT_THAT(rejection(deep), HasSubstr("cut off"));
  deep += "1" + std::string(200'001, '}');
  EXPECT_THAT(rejection(deep), HasSubstr("not valid JSON"));
}

TEST(ParseCodeChanges, MessageIsMaskedOneLineAndShort) {
  const std::string key = "sk-proj-aB3" + std::string(40, 'a');
  const std::string what = rejection("my key\n\x1b[31m: " + key + " " + std::string(10'000, 'z'));
  EXPECT_THAT(what, Not(HasSubstr(key)));
  EXPECT_THAT(what, Not(HasSubstr("\n")));
  EXPECT_THAT(what, Not(HasSubstr("\x1b")));
  EXPECT_LT(what.size(), 700u);
}

TEST(ParseCodeChanges, PathsOutOfTheRepositoryAreRefused) {
  for (const std::string_view path :
       {"/etc/x", "../x", "a/../../x", "a/..", "..", "a//b", "a/", "a/./b", ".", "", "a\\b",
        "..\\x", "a\nb", "a\rb", "a\tb", "a\x7f"}) {
    EXPECT_THAT(refusal(path), HasSubstr("refused paths")) << path;
  }
  EXPECT_THAT(refusal(std::string_view("a\0b", 3)), HasSubstr("control character"));
  EXPECT_THAT(refusal(std::string(limits::kPathBytes + 1, 'a')), HasSubstr("too long"));
  EXPECT_EQ(refusal(std::string(200, 'a')), "accepted");
}

TEST(ParseCodeChanges, GitDirectoryIsRefusedInAnySpelling) {
  for (const std::string_view path :
       {".git/config", ".git", "./.git/hooks/x", "sub/.GIT/HEAD", ".Git /config", ".git./config",
        ".git . ./x", "git~1/config", "GIT~12/x", ".git::$INDEX_ALLOCATION/config",
        ".g\xE2\x80\x8Cit/config", "\xEF\xBB\xBF.git/config", ".gi\xE2\x81\xAAt/x",
        ".git\xE2\x80\xAE/x"}) {
    EXPECT_THAT(refusal(path), HasSubstr("leads into .git")) << path;
  }
  for (const std::string_view path :
       {".gitignore", ".github/workflows/x.yml", "git/config", "a.git/x", ".gitattributes",
        "git~x/a", "...git", "caf\xC3\xA9.txt", "-f", "a b"}) {
    EXPECT_EQ(refusal(path), "accepted") << path;
  }
}

TEST(ParseCodeChanges, OneRefusedPathRefusesAllAndOnlyRefusedOnesAreNamed) {
  try {
    parse(R"({"code_changes":[{"file_path":"a","operation":"create","content":""},
      {"file_path":"../b","operation":"create","content":""},
      {"file_path":"c","operation":"bad"}]})");
    FAIL();
  } catch (const SecurityError& error) {
    ASSERT_EQ(error.info().fields.size(), 1u);
    EXPECT_EQ(error.info().fields[0].pointer, "/code_changes/1/file_path");
    EXPECT_EQ(error.info().fields[0].message, "\"../b\" leads upward");
  }
}

// 4 MB of it took half an hour once: each looked for the name through all that follows.
TEST(ParseCodeChanges, BrokenObjectsWithoutEndAreReadOnce) {
  std::string text;
  while (text.size() < 4 * limits::kMiB) text += "{\"cc\"} ";
  EXPECT_THROW(parse(text), ImplementationError);
}

TEST(Usage, AddsUpAndIsEstimatedWhenAPartIs) {
  Usage sum;
  sum += Usage{1, 2, 3, 4, 5, 6, false, 0.5};
  EXPECT_EQ(sum.cost_usd, 0.5);
  sum += Usage{10, 20, 30, 40, 50, 60, true, 0.25};
  EXPECT_EQ(sum.to_json().dump(),
            R"({"prompt_tokens":11,"completion_tokens":22,"total_tokens":33,"cached_tokens":44,)"
            R"("cache_write_tokens":55,"reasoning_tokens":66,"estimated":true,"cost_usd":0.75})");
  sum += Usage{1, 1, 2};
  EXPECT_FALSE(sum.cost_usd);
  sum += Usage{};
  EXPECT_EQ(sum.total_tokens, 35);
}

TEST(ParseCodeChanges, ObjectWithinABrokenOneIsNotTheAnswer) {
  const std::string inner =
      R"({"code_changes":[{"file_path":"inner.txt","operation":"create","content":"x"}]})";
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"real.txt","content":"cut off )" + inner),
              HasSubstr("cut off"));
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":real.txt, "x":)" + inner + "}]}"),
              HasSubstr("its JSON"));
  // A broken sketch before the answer is only that.
  EXPECT_EQ(parse(R"(As {"code_changes": [...]} asks: )" + kCreate).size(), 1u);
}

TEST(ParseCodeChanges, MemberThatStandsTwiceIsRejected) {
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"a","operation":"delete"}],)"
                        R"("code_changes":[{"file_path":"b","operation":"delete"}]})"),
              HasSubstr("stands in it twice"));
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"a","file_path":"b",)"
                        R"("operation":"delete"}]})"),
              HasSubstr("stands twice"));
  EXPECT_THAT(rejection(R"({"code_changes":[{"file_path":"a","operation":"modify",)"
                        R"("edits":[{"search":"x","search":"y","replace":"z"}]}]})"),
              HasSubstr("stands twice"));
}

TEST(ParseCodeChanges, KeyInTheAnswerIsShownInNoPart) {
  const Secret key("corpkey.ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789");
  const Masker masker({&key});
  for (const std::size_t before : {0u, 60u, 85u, 95u, 470u, 490u, 16'370u}) {
    const std::string text = std::string(before, 'p') + std::string(key.reveal());
    const auto with = [](const Json& change) {
      return Json::object({{"code_changes", Json(Json::Array{change})}}).dump();
    };
    for (const std::string& answer :
         {text, with(Json::object({{"file_path", "/" + text}})),
          with(Json::object({{"file_path", "a"},
                             {"operation", "modify"},
                             {"diff", "@@ -1,2 +1 @@ " + text + "\n-a\n+b\n"}})),
          "--- a/a\n+++ b/a\n@@\n-a\n+b\n@" + text + "\n", "diff --git a/a b/a\n" + text + "\n",
          "--- a/a\n+++ b/a\n@@ -1,2 +1 @@ " + text + "\n-a\n+b\n"}) {
      std::string explanation;
      try {
        parse_code_changes(answer, explanation, masker);
        ADD_FAILURE() << "accepted";
      } catch (const RunnerError& error) {
        EXPECT_THAT(error.what(), Not(HasSubstr("corpkey."))) << before;
        for (const FieldError& field : error.info().fields)
          EXPECT_THAT(field.message, Not(HasSubstr("corpkey."))) << before;
      }
    }
  }
}

TEST(ParseCodeChanges, ManyObjectsWithinAnOpenBraceTakeTimeInProportion) {
  // Four million bytes: where each object looked back to the brace, this took an hour.
  std::string text = R"({"a": )";
  while (text.size() < 4 * limits::kMiB) text += R"({"c":1})";
  EXPECT_THAT(rejection(text), HasSubstr("no \"code_changes\""));
}

}  // namespace
}  // namespace necrocode::llm
