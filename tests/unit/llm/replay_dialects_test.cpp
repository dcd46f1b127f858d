// One answer in three dialects, whole and streamed, against what the vendors document.
#include "necrocode/llm/replay_dialects.hpp"

#include <gmock/gmock.h>

#include "necrocode/base/text.hpp"
#include "unit/llm/replay_fixture.hpp"

namespace necrocode::llm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

constexpr const char* kChat = "/v1/chat/completions";
constexpr const char* kResponses = "/v1/responses";
constexpr const char* kMessages = "/v1/messages";

// Everything an answer can hold.
constexpr std::string_view kRich = R"([{"times":0,"answer":{
  "reasoning":"hm, so","content":"Grüße, Welt","chunk":4,"tool_calls":[
    {"id":"call_1","name":"look","arguments":"{\"at\":1}"},
    {"id":"call_2","name":"go","arguments":"{}"}],
  "usage":{"prompt_tokens":30,"completion_tokens":9,"cached_tokens":10,"cache_write_tokens":5,
           "reasoning_tokens":4}}}])";

// What of an object is different every time, or of no account here, left out.
Json without(Json object, std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) object.erase(name);
  return object;
}

TEST(WholeAnswer, ChatHasToolCallsReasoningAndUsageDetails) {
  const test::Replay replay(kRich);
  const Json body = Json::parse(replay.post(kChat, "x").body);
  EXPECT_EQ(body["choices"].dump(),
            R"([{"index":0,"message":{"role":"assistant","content":"Grüße, Welt","refusal":null,)"
            R"("reasoning_content":"hm, so","tool_calls":[)"
            R"({"id":"call_1","type":"function","function":{"name":"look","arguments":)"
            R"("{\"at\":1}"}},{"id":"call_2","type":"function","function":{"name":"go",)"
            R"("arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}])");
  EXPECT_EQ(body["usage"].dump(),
            R"({"prompt_tokens":30,"completion_tokens":9,"cache_write_tokens":5,)"
            R"("total_tokens":39,"prompt_tokens_details":{"cached_tokens":10},)"
            R"("completion_tokens_details":{"reasoning_tokens":4}})");
}

TEST(WholeAnswer, ResponsesHasItsItems) {
  const test::Replay replay(kRich);
  const Json body = Json::parse(replay.post(kResponses, "x").body);
  EXPECT_EQ(body["object"], Json("response"));
  EXPECT_EQ(body["status"], Json("completed"));
  EXPECT_EQ(body["model"], Json("gpt-4"));
  EXPECT_THAT(body["id"].string_or(""), StartsWith("resp_"));
  std::vector<std::string> items;
  for (const Json& item : body["output"].items()) items.push_back(without(item, {"id"}).dump());
  EXPECT_THAT(
      items, ElementsAre(
                 R"({"type":"reasoning","summary":[{"type":"summary_text","text":"hm, so"}]})",
                 R"({"type":"message","status":"completed","role":"assistant","content":[)"
                 R"({"type":"output_text","text":"Grüße, Welt","annotations":[],"logprobs":[]}]})",
                 R"({"type":"function_call","status":"completed","call_id":"call_1","name":"look",)"
                 R"("arguments":"{\"at\":1}"})",
                 R"({"type":"function_call","status":"completed","call_id":"call_2","name":"go",)"
                 R"("arguments":"{}"})"));
  EXPECT_EQ(body["usage"].dump(),
            R"({"input_tokens":30,"input_tokens_details":{"cached_tokens":10},"output_tokens":9,)"
            R"("output_tokens_details":{"reasoning_tokens":4},"total_tokens":39})");
}

TEST(WholeAnswer, MessagesHasItsBlocks) {
  const test::Replay replay(kRich);
  const net::HttpResponse answer = replay.post(kMessages, "x", "claude-x");
  EXPECT_TRUE(answer.headers.get("request-id").has_value());
  const Json body = Json::parse(answer.body);
  EXPECT_THAT(body["id"].string_or(""), StartsWith("msg_"));
  EXPECT_EQ(without(body, {"id"}).dump(),
            R"({"type":"message","role":"assistant","model":"claude-x","content":[)"
            R"({"type":"thinking","thinking":"hm, so","signature":""},)"
            R"({"type":"text","text":"Grüße, Welt"},)"
            R"({"type":"tool_use","id":"call_1","name":"look","input":{"at":1}},)"
            R"({"type":"tool_use","id":"call_2","name":"go","input":{}}],)"
            R"("stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":15,)"
            R"("cache_creation_input_tokens":5,"cache_read_input_tokens":10,"output_tokens":9}})");
}

TEST(WholeAnswer, FinishReasonsAreToldInEachDialectsWords) {
  const auto told = [](const std::string& reason) {
    const test::Replay replay(R"([{"times":0,"answer":{"content":"x","finish_reason":")" + reason +
                              "\"}}]");
    const Json chat = Json::parse(replay.post(kChat, "x").body);
    const Json responses = Json::parse(replay.post(kResponses, "x").body);
    const Json messages = Json::parse(replay.post(kMessages, "x").body);
    return chat["choices"].items().at(0)["finish_reason"].string_or("null") + " " +
           responses["status"].string_or("") +
           responses["incomplete_details"]["reason"].string_or("") + " " +
           messages["stop_reason"].string_or("null");
  };
  EXPECT_EQ(told("stop"), "stop completed end_turn");
  EXPECT_EQ(told("length"), "length incompletemax_output_tokens max_tokens");
  EXPECT_EQ(told("content_filter"), "content_filter incompletecontent_filter refusal");
  EXPECT_EQ(told("other"), "other incompleteother other");
  EXPECT_EQ(told(""), "null incomplete null");
}

TEST(WholeAnswer, UsageOfNullOrForgedThenNullOrWithinBounds) {
  const test::Replay none(R"([{"times":0,"answer":{"content":"x","usage":null}}])");
  for (const std::string& path : test::kModelPaths) {
    const Json body = Json::parse(none.post(path, "x").body);
    ASSERT_NE(body.find("usage"), nullptr);
    EXPECT_TRUE(body["usage"].is_null());
  }
  const test::Replay forged(
      R"([{"times":0,"answer":{"content":"x","usage":{"prompt_tokens":9223372036854775807,
           "completion_tokens":-9223372036854775807,"cached_tokens":"many"}}}])");
  EXPECT_EQ(Json::parse(forged.post(kMessages, "x").body)["usage"]["input_tokens"], Json(0));
  EXPECT_EQ(Json::parse(forged.post(kResponses, "x").body)["usage"]["total_tokens"], Json(0));
}

TEST(WholeAnswer, ArgumentsThatAreNoJsonThenTheTextItself) {
  const test::Replay replay(
      R"([{"answer":{"tool_calls":[{"id":"1","name":"n","arguments":"{\"a\":"}]}}])");
  const Json body = Json::parse(replay.post(kMessages, "x").body);
  EXPECT_EQ(body["content"].dump(),
            R"([{"type":"tool_use","id":"1","name":"n","input":"{\"a\":"}])");
}

// ---- streams ----

TEST(StreamedAnswer, ChatChunksFollowTheGrammar) {
  const test::Replay replay(kRich);
  const Json options = Json::object({{"include_usage", true}});
  Json request = Json::parse(test::ask(kChat, "x", true)).set("stream_options", options);
  const auto stream = test::read_stream(replay.url(kChat), request.dump());
  EXPECT_EQ(stream.broken, "");
  ASSERT_GT(stream.data.size(), 3u);
  EXPECT_EQ(stream.data.back(), Json("[DONE]"));
  std::vector<std::string> deltas;
  const std::string id = stream.data.front()["id"].string_or("");
  for (std::size_t i = 0; i + 1 < stream.data.size(); ++i) {
    const Json& chunk = stream.data[i];
    EXPECT_EQ(chunk["object"], Json("chat.completion.chunk"));
    EXPECT_EQ(chunk["id"], Json(id));
    ASSERT_NE(chunk.find("usage"), nullptr);
    const bool last = i + 2 == stream.data.size();
    EXPECT_EQ(chunk["usage"].is_object(), last);
    EXPECT_EQ(chunk["choices"].size(), last ? 0u : 1u);
    if (!last) deltas.push_back(chunk["choices"].items()[0]["delta"].dump());
  }
  EXPECT_THAT(
      deltas,
      ElementsAre(R"({"role":"assistant","content":"","refusal":null})",
                  R"({"reasoning_content":"hm, "})", R"({"reasoning_content":"so"})",
                  R"({"content":"Grü"})", R"({"content":"ße,"})", R"({"content":" Wel"})",
                  R"({"content":"t"})",
                  R"({"tool_calls":[{"id":"call_1","type":"function","function":{"name":"look",)"
                  R"("arguments":""},"index":0}]})",
                  R"({"tool_calls":[{"function":{"arguments":"{\"at"},"index":0}]})",
                  R"({"tool_calls":[{"function":{"arguments":"\":1}"},"index":0}]})",
                  R"({"tool_calls":[{"id":"call_2","type":"function","function":{"name":"go",)"
                  R"("arguments":""},"index":1}]})",
                  R"({"tool_calls":[{"function":{"arguments":"{}"},"index":1}]})", "{}"));
  const Json& finish = stream.data[stream.data.size() - 3]["choices"].items()[0];
  EXPECT_EQ(finish["finish_reason"], Json("tool_calls"));
}

TEST(StreamedAnswer, ChatWithoutIncludeUsageThenNoUsageAtAll) {
  const test::Replay replay(kRich);
  EXPECT_THAT(replay.stream(kChat, "x").bytes, testing::Not(HasSubstr("usage")));
}

TEST(StreamedAnswer, ResponsesEventsFollowTheGrammar) {
  const test::Replay replay(R"([{"answer":{"reasoning":"hm","content":"hello","chunk":3,
      "tool_calls":[{"id":"c","name":"n","arguments":"{}"}]}}])");
  const auto stream = replay.stream(kResponses, "x");
  std::vector<std::string> names;
  for (const std::string& name : stream.names) names.push_back(name.substr(9));        // response.
  EXPECT_THAT(names, ElementsAre("created", "in_progress",                             //
                                 "output_item.added", "reasoning_summary_part.added",  //
                                 "reasoning_summary_text.delta",                       //
                                 "reasoning_summary_text.done",                        //
                                 "reasoning_summary_part.done", "output_item.done",    //
                                 "output_item.added", "content_part.added",            //
                                 "output_text.delta", "output_text.delta",             //
                                 "output_text.done", "content_part.done",              //
                                 "output_item.done", "output_item.added",              //
                                 "function_call_arguments.delta",                      //
                                 "function_call_arguments.done", "output_item.done",   //
                                 "completed"));
  for (std::size_t i = 0; i < stream.data.size(); ++i) {
    EXPECT_EQ(stream.data[i]["sequence_number"], Json(i));
  }
  EXPECT_EQ(stream.data[2]["item"]["summary"], Json::array());
  EXPECT_EQ(stream.data[8]["item"]["status"], Json("in_progress"));
  EXPECT_EQ(stream.data[8]["output_index"], Json(1));
  EXPECT_EQ(stream.data[10]["delta"], Json("hel"));
  EXPECT_EQ(stream.data[10]["item_id"], stream.data[8]["item"]["id"]);
  EXPECT_EQ(stream.data[12]["text"], Json("hello"));
  EXPECT_EQ(stream.data[17]["arguments"], Json("{}"));
  EXPECT_EQ(stream.data[18]["item"]["call_id"], Json("c"));
  const Json& whole = stream.data.back()["response"];
  EXPECT_EQ(whole["status"], Json("completed"));
  EXPECT_EQ(whole["output"].size(), 3u);
  EXPECT_EQ(whole["id"], stream.data[0]["response"]["id"]);
  EXPECT_TRUE(whole["usage"].is_object());
  EXPECT_TRUE(stream.data[0]["response"]["usage"].is_null());
}

TEST(StreamedAnswer, ResponsesCutAtTheTokenLimitThenIncomplete) {
  const test::Replay replay(R"([{"answer":{"content":"hello","finish_reason":"length"}}])");
  const auto stream = replay.stream(kResponses, "x");
  EXPECT_EQ(stream.names.back(), "response.incomplete");
  EXPECT_EQ(stream.data.back()["response"]["incomplete_details"].dump(),
            R"({"reason":"max_output_tokens"})");
}

TEST(StreamedAnswer, MessagesEventsFollowTheGrammar) {
  const test::Replay replay(R"([{"answer":{"reasoning":"hm","content":"hello","chunk":3,
      "tool_calls":[{"id":"c","name":"n","arguments":"{\"a\":1}"}],
      "usage":{"prompt_tokens":7,"completion_tokens":5}}}])");
  const auto stream = replay.stream(kMessages, "x");
  EXPECT_THAT(stream.names,
              ElementsAre("message_start", "ping",  //
                          "content_block_start", "content_block_delta", "content_block_stop",
                          "content_block_start", "content_block_delta", "content_block_delta",
                          "content_block_stop",  //
                          "content_block_start", "content_block_delta", "content_block_delta",
                          "content_block_delta", "content_block_stop",  //
                          "message_delta", "message_stop"));
  const Json& message = stream.data[0]["message"];
  EXPECT_EQ(message["content"], Json::array());
  EXPECT_TRUE(message["stop_reason"].is_null());
  EXPECT_EQ(message["usage"].dump(),
            R"({"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,)"
            R"("output_tokens":1})");
  EXPECT_EQ(stream.data[2]["content_block"]["type"], Json("thinking"));
  EXPECT_EQ(stream.data[3]["delta"].dump(), R"({"type":"thinking_delta","thinking":"hm"})");
  EXPECT_EQ(stream.data[6]["delta"].dump(), R"({"type":"text_delta","text":"hel"})");
  EXPECT_EQ(stream.data[6]["index"], Json(1));
  EXPECT_EQ(stream.data[9]["content_block"].dump(),
            R"({"type":"tool_use","id":"c","name":"n","input":{}})");
  EXPECT_EQ(stream.data[10]["delta"].dump(),
            R"({"type":"input_json_delta","partial_json":"{\"a"})");
  EXPECT_EQ(stream.data[14]["delta"].dump(), R"({"stop_reason":"tool_use","stop_sequence":null})");
  EXPECT_EQ(stream.data[14]["usage"]["output_tokens"], Json(5));
}

TEST(StreamedAnswer, LongTextThenABoundedNumberOfPieces) {
  CompletionAnswer answer;
  answer.content = std::string(1'000'000, 'x');
  answer.chunk = 1;
  Question question;
  EXPECT_LE(streamed_answer(ModelApi::kChat, answer, question).size(), 10'003u);
}

TEST(StreamedAnswer, BytesThatAreNoCharactersThenStillCut) {
  CompletionAnswer answer;
  answer.content = std::string(50, '\x80');
  EXPECT_FALSE(streamed_answer(ModelApi::kChat, answer, Question()).empty());
}

TEST(StreamedAnswer, DelayThenBeforeEachPiece) {
  const test::Replay replay(R"([{"answer":{"content":"hello","delay_ms":2}}])");
  const auto began = std::chrono::steady_clock::now();
  const auto stream = replay.stream(kChat, "x");
  EXPECT_EQ(stream.data.back(), Json("[DONE]"));
  EXPECT_GE(std::chrono::steady_clock::now() - began, std::chrono::milliseconds(2 * 4));
}

// ---- what is asked ----

Question read(ModelApi api, std::string_view body) {
  std::string defect;
  Question question = read_question(api, Json::parse(body), defect);
  EXPECT_EQ(defect, "");
  return question;
}

TEST(ReadQuestion, ContentsOfAllMessagesAreLookedAtInEachDialect) {
  const Question chat = read(ModelApi::kChat, R"({"model":"m","stream":true,"messages":[
      {"role":"system","content":"be brief"},{"role":"user","content":[{"type":"text",
      "text":"one"},{"type":"image_url","image_url":{"url":"data:"}}]},
      {"role":"assistant","content":null,"tool_calls":[]},
      {"role":"tool","tool_call_id":"c","content":"two"}]})");
  EXPECT_EQ(chat.model, "m");
  EXPECT_TRUE(chat.stream);
  EXPECT_EQ(chat.text, "be brief\none\n\ntwo");
  EXPECT_EQ(chat.last, "two");
  const Question responses = read(ModelApi::kResponses, R"({"model":"m","instructions":"be brief",
      "input":[{"role":"user","content":[{"type":"input_text","text":"one"}]},
      {"type":"function_call","call_id":"c","name":"n","arguments":"{}"},
      {"type":"function_call_output","call_id":"c","output":"two"}]})");
  EXPECT_THAT(responses.text, HasSubstr("be brief\none\n"));
  EXPECT_EQ(responses.last, "two");
  EXPECT_EQ(read(ModelApi::kResponses, R"({"instructions":"a","input":"b"})").text, "a\nb");
  EXPECT_EQ(read(ModelApi::kResponses, R"({"instructions":"a","input":"b"})").last, "b");
  const Question messages = read(ModelApi::kMessages, R"({"model":"m",
      "system":[{"type":"text","text":"be brief"}],"messages":[{"role":"user","content":"one"},
      {"role":"assistant","content":[{"type":"tool_use","id":"c","name":"n","input":{}}]},
      {"role":"user","content":[{"type":"tool_result","tool_use_id":"c",
      "content":[{"type":"text","text":"two"}]},{"type":"text","text":" three"}]}]})");
  EXPECT_THAT(messages.text, StartsWith("be brief\none\n"));
  EXPECT_EQ(messages.last, "two three");
}

TEST(ReadQuestion, NothingAskedThenADefectInTheDialectsOwnErrorShape) {
  const test::Replay replay(R"([{"answer":{"content":"x"}}])");
  for (const std::string& path : test::kModelPaths) {
    for (const char* bad :
         {"[]", "{}", R"({"messages":[],"input":[]})", R"({"messages":"x","input":7})"}) {
      const auto answer = test::send("POST", replay.url(path), bad);
      EXPECT_EQ(answer.status, 400) << path << bad;
      const Json body = Json::parse(answer.body);
      EXPECT_EQ(body["error"]["type"], Json("invalid_request_error"));
      EXPECT_EQ(body["type"].string_or(""), path == kMessages ? "error" : "");
    }
  }
  EXPECT_TRUE(replay.server.served().empty());
}

// ---- where ----

TEST(ModelRoutes, AzureDeploymentAndPathsWithoutOrWithTwoVersionsAreServed) {
  const test::Replay replay(
      R"([{"match":{"model":"my-gpt"},"answer":{"content":"azure"}},
          {"times":0,"answer":{"content":"x"}}])");
  const auto azure = test::send(
      "POST", replay.url("/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"),
      R"({"messages":[{"role":"user","content":"x"}]})", {{"api-key", "any"}});
  EXPECT_THAT(azure.body, HasSubstr("azure"));
  for (const ModelRoute& route : model_routes()) {
    const std::string path = replace_all(std::string(route.pattern), "{deployment}", "d");
    EXPECT_EQ(replay.post(path, "x").status, 200) << path;
  }
  EXPECT_EQ(replay.post("/v2/chat/completions", "x").status, 404);
}

}  // namespace
}  // namespace necrocode::llm
