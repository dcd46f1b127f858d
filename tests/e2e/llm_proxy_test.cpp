// `necrocode llm proxy`: the shipped binary between a program and a model service.
#include <atomic>
#include <thread>

#include "e2e/fixture.hpp"
#include "necrocode/net/http_client.hpp"

namespace necrocode::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kKey = "sk-the-real-key-0123456789";

class LlmProxy : public EndToEnd {
 protected:
  struct Proxy {
    std::unique_ptr<Program> program;
    Json ready;
  };
  /// A proxy before serve_model()'s service, at $1 a million tokens in and $2 out.
  Proxy start_proxy(std::vector<std::string> arguments) {
    extra_env_ = {"LLM_API_KEY=" + std::string(kKey)};
    write_file_atomic(path("prices.yaml"), "gpt-4: {input: 1, output: 2}\n");
    const std::vector<std::string> first = {"llm",
                                            "proxy",
                                            "--data",
                                            path("data").string(),
                                            "--prices",
                                            path("prices.yaml").string(),
                                            "--llm-endpoint",
                                            endpoint()};
    arguments.insert(arguments.begin(), first.begin(), first.end());
    Proxy proxy;
    proxy.program = start(arguments);
    proxy.ready = Json::try_parse(proxy.program->read_line().value_or("")).value_or(Json());
    EXPECT_EQ(proxy.ready["event"], Json("ready")) << stderr_text();
    return proxy;
  }
  static net::HttpResponse ask(const Json& ready, const std::string& model = "gpt-4",
                               const std::string& key = {}) {
    net::HttpRequest request;
    request.method = "POST";
    request.url = ready["endpoint"].string_or("") + "/chat/completions";
    request.headers.add("Authorization",
                        "Bearer " + (key.empty() ? ready["key"].string_or("") : key));
    const Json message = Json::object({{"role", "user"}, {"content", "x"}});
    request.body =
        Json::object(
            {{"model", model}, {"max_tokens", 5'000}, {"messages", Json(Json::Array{message})}})
            .dump();
    return net::make_curl_http_client()->send(request, {});
  }
  /// What is printed after SIGTERM: the last line.
  static Json stop(Program& program) {
    program.signal(SIGTERM);
    std::string rest;
    EXPECT_EQ(program.wait(&rest), 0);
    const auto lines = split(trim(rest), '\n');
    return Json::try_parse(lines.back()).value_or(Json());
  }
  void serve_tokens(int prompt, int completion) {
    Json entry = Json::object({{"times", 0}});
    entry.set("answer",
              Json::object({{"content", "hello"},
                            {"usage", Json::object({{"prompt_tokens", prompt},
                                                    {"completion_tokens", completion}})}}));
    serve_model({entry});
  }
};

TEST_F(LlmProxy, ProgramAsksThenItIsToldCountedAndRecorded) {
  serve_tokens(3000, 1000);
  Proxy proxy = start_proxy({"--record", path("talk.jsonl").string()});
  const std::string key = proxy.ready["key"].string_or("");
  EXPECT_TRUE(key.starts_with("sk-necrocode-")) << key;
  EXPECT_EQ(proxy.ready["endpoint"], Json(proxy.ready["url"].string_or("") + "/v1"));
  EXPECT_EQ(ask(proxy.ready, "gpt-4", kKey).status, 401);
  EXPECT_EQ(ask(proxy.ready).status, 200);
  const Json exchange = Json::parse(proxy.program->read_line().value_or(""));
  EXPECT_EQ(exchange["event"], Json("exchange"));
  EXPECT_EQ(exchange["class"], Json("ok"));
  EXPECT_EQ(exchange["usage"]["cost_usd"], Json(0.005));
  EXPECT_EQ(ask(proxy.ready, "gpt-9").status, 200);  // no cap, so no price is needed
  const Json stopped = stop(*proxy.program);
  EXPECT_EQ(stopped["event"], Json("stopped"));
  EXPECT_EQ(stopped["calls"], Json(2));
  EXPECT_EQ(stopped["usage"]["prompt_tokens"], Json(6000));
  const std::string talk = read_file(path("talk.jsonl"), limits::kMiB);
  EXPECT_THAT(talk, HasSubstr("hello"));
  EXPECT_THAT(talk + stderr_text(), Not(HasSubstr(kKey)));
}

TEST_F(LlmProxy, CapThenTheCallThatWouldPassItIsRefused) {
  serve_tokens(1000, 4000);  // $0.009, at most $0.01 and its prompt
  Proxy proxy = start_proxy({"--cap-usd", "0.03"});
  int answered = 0;
  while (ask(proxy.ready).status == 200) ++answered;
  EXPECT_EQ(answered, 3);
  EXPECT_EQ(ask(proxy.ready).status, 402);
  EXPECT_EQ(ask(proxy.ready, "gpt-9").status, 402);
  const Json stopped = stop(*proxy.program);
  EXPECT_EQ(stopped["calls"], Json(3));
  EXPECT_EQ(stopped["refused"], Json(3));
  EXPECT_EQ(stopped["failure"]["class"], Json("cap"));
}

TEST_F(LlmProxy, TenProcessesThenTheyNeverPassADailyCapTogetherAlsoAfterAKill) {
  serve_tokens(1000, 4000);  // $0.009
  constexpr int kProcesses = 10;
  std::vector<Proxy> proxies;
  for (int i = 0; i < kProcesses; ++i) proxies.push_back(start_proxy({"--daily-cap-usd", "0.25"}));
  std::atomic<int> answered = 0;
  std::vector<std::thread> threads;
  for (const Proxy& proxy : proxies) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5; ++n) answered += ask(proxy.ready).status == 200;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(answered * 0.009, 0.25);
  EXPECT_GE(answered, 20);
  for (Proxy& proxy : proxies) {
    proxy.program->signal(SIGKILL);
    proxy.program->wait();
  }
  Proxy later = start_proxy({"--daily-cap-usd", "0.25"});
  int more = 0;
  while (ask(later.ready).status == 200) ++more;
  EXPECT_LE((answered + more) * 0.009, 0.25);
}

TEST_F(LlmProxy, OwnersThenEachHasItsOwnCap) {
  serve_tokens(1000, 4000);
  Proxy one = start_proxy({"--owner", "ann", "--owner-cap-usd", "0.015"});
  EXPECT_EQ(ask(one.ready).status, 200);
  EXPECT_EQ(ask(one.ready).status, 402);
  Proxy other = start_proxy({"--owner", "bob", "--owner-cap-usd", "0.015"});
  EXPECT_EQ(ask(other.ready).status, 200);
  Proxy again = start_proxy({"--owner", "ann", "--owner-cap-usd", "0.015"});
  EXPECT_EQ(ask(again.ready).status, 402);
}

TEST_F(LlmProxy, CapThatIsNoAmountThenAWrongCommandLine) {
  for (const char* amount : {"0", "-1", "nan", "inf", "1e999", "two", "$2", "2,5"}) {
    EXPECT_EQ(run({"llm", "proxy", "--cap-usd", amount}), 2) << amount;
    EXPECT_THAT(stderr_text(), HasSubstr("--cap-usd must be a number of US dollars above 0"));
  }
  extra_env_ = {"LLM_API_KEY=" + std::string(kKey)};
  write_file_atomic(path("bad.yaml"), "gpt-4: {input: 1}\n");
  EXPECT_EQ(run({"llm", "proxy", "--prices", path("bad.yaml").string()}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("/gpt-4/output"));
  EXPECT_EQ(run({"llm", "proxy", "--prices", path("none.yaml").string()}), 2);
  EXPECT_THAT(stderr_text(), HasSubstr("--prices"));
}

}  // namespace
}  // namespace necrocode::test
