#include "necrocode/net/http_router.hpp"

#include <algorithm>
#include <set>

#include "necrocode/base/check.hpp"
#include "necrocode/base/text.hpp"

namespace necrocode::net {
namespace {

bool matches(const Route& route, const std::vector<std::string>& segments) {
  return std::equal(route.segments.begin(), route.segments.end(), segments.begin(), segments.end(),
                    [](const Route::Segment& wanted, const std::string& given) {
                      return wanted.parameter ? !given.empty() : wanted.text == given;
                    });
}

// Both match one path: the first difference from the left decides for the literal segment.
bool more_specific(const Route& a, const Route& b) {
  for (std::size_t i = 0; i < a.segments.size(); ++i) {
    if (a.segments[i].parameter != b.segments[i].parameter) return b.segments[i].parameter;
  }
  return false;
}

bool same_shape(const Route& a, const Route& b) {
  return std::equal(a.segments.begin(), a.segments.end(), b.segments.begin(), b.segments.end(),
                    [](const Route::Segment& x, const Route::Segment& y) {
                      return x.parameter == y.parameter && (x.parameter || x.text == y.text);
                    });
}

}  // namespace

void HttpRouter::add(std::string method, std::string pattern, Handler handler,
                     RouteOptions options) {
  NECROCODE_CHECK(pattern.starts_with('/') && handler);
  auto route = std::make_unique<Route>();
  for (const std::string_view part : split(std::string_view(pattern).substr(1), '/')) {
    const bool parameter = part.starts_with('{') && part.ends_with('}');
    NECROCODE_CHECK(!parameter || part.size() > 2);
    route->segments.push_back(
        {std::string(parameter ? part.substr(1, part.size() - 2) : part), parameter});
  }
  route->method = std::move(method);
  route->pattern = std::move(pattern);
  route->handler = std::move(handler);
  route->options = options;
  for (const auto& known : routes_) {
    NECROCODE_CHECK(known->method != route->method || !same_shape(*known, *route));
  }
  routes_.push_back(std::move(route));
}

HttpRouter::Match HttpRouter::match(std::string_view method,
                                    const std::vector<std::string>& segments) const {
  Match match;
  const Route* through_get = nullptr;
  std::set<std::string> allowed;
  const auto prefer = [](const Route*& best, const Route& candidate) {
    if (best == nullptr || more_specific(candidate, *best)) best = &candidate;
  };
  for (const auto& route : routes_) {
    if (!matches(*route, segments)) continue;
    allowed.insert(route->method);
    if (route->method == method) prefer(match.route, *route);
    if (method == "HEAD" && route->method == "GET") prefer(through_get, *route);
  }
  if (match.route == nullptr) match.route = through_get;
  if (match.route == nullptr) {
    if (allowed.contains("GET")) allowed.insert("HEAD");
    match.allow = join({allowed.begin(), allowed.end()}, ", ");
    return match;
  }
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Route::Segment& segment = match.route->segments[i];
    if (segment.parameter) match.params.emplace(segment.text, segments[i]);
  }
  return match;
}

}  // namespace necrocode::net
