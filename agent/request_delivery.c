/* What another agent may be asked for as well (failover_after, proto/README.md section 7). The service asks it some seconds after it saw the channel end over which this request
 * came: so whoever has lost that channel begins no write until the same bytes come again, which says that no other agent has been asked, or that it has not done it. A write may wait
 * for long before it is handed to its connection, for a place in the pipeline or for a bind: it is asked for once more then. */
#include "agent/request_internal.h"
#include "base/clock.h"
#include "base/log.h"

void requests_channel_ready(struct requests *requests)
{
	int64_t now_s = clock_now_ms() / 1000;
	if (!requests->channel_us)
		requests->channel_us = clock_monotonic_us();
	/* The service has checked the clock; it was ahead when the loss was met. */
	if (requests->lost_s > now_s)
		requests->lost_s = now_s;
}

void requests_channel_lost(struct requests *requests, uint8_t endpoint)
{
	for (struct request *request = requests->first; request; request = request->next)
		request->undelivered |= request->claims && request->claims->failover_after && request->endpoint == endpoint;
}

static void handle_news(evutil_socket_t fd, short what, void *arg)
{
	request_resume(arg, STATUS_OK);
}

enum status request_hear_news(struct request *request)
{
	if (!request->claims->failover_after)
		return STATUS_OK;
	request->pending = request_set_timer(request, 0, handle_news);
	return request->pending ? STATUS_OK : STATUS_AGENT_INTERNAL;
}

static void handle_exp(evutil_socket_t fd, short what, void *arg)
{
	struct request *request = arg;
	request->awaits_delivery = false;
	request_resume(request, STATUS_REQUEST_EXPIRED);
}

enum status request_await_delivery(struct request *request)
{
	if (!request->undelivered)
		return STATUS_OK;
	int64_t left_ms = request->claims->exp * 1000 - clock_now_ms();
	if (left_ms <= 0)
		return STATUS_REQUEST_EXPIRED;
	if (!request_set_timer(request, left_ms, handle_exp))
		return STATUS_AGENT_INTERNAL;
	log_event(LOG_NOTICE, "request.waits", LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }),
	          "its channel is lost and the service may ask another agent: nothing is written until it is delivered again");
	request->awaits_delivery = request->pending = true;
	return STATUS_OK;
}

/* Whoever is asked behind the channel's end is asked failover_after later: half of that is for the look and the write, half for how long that end may be on its way. Once for each write: a
 * directory may be that slow each time, and while it is waited for the loop hears of the end as it comes. */
static bool is_look_old(const struct request *request)
{
	return request->claims->failover_after && clock_boottime_us() - request->rechecked_us > request->claims->failover_after * 1000000 / 2;
}

enum status request_still_wanted(void *arg)
{
	struct request *request = arg;
	enum status status = verified_still_valid(request->verified, clock_now_ms() / 1000);
	struct attempt *attempt = &request->attempts[request->second_running ? SECOND : FIRST];
	bool old = status == STATUS_OK && !request->undelivered && !attempt->looked_again && is_look_old(request);
	attempt->looked_again |= old;
	return status == STATUS_OK && (request->undelivered || old) ? STATUS_CHANNEL_CLOSED : status;
}

enum status request_look_again(struct request *request)
{
	if (!request->undelivered)
		log_event(LOG_NOTICE, "request.waits", LOG_FIELDS({ LOG_OPERATION_ID, request->entry.operation_id }, { LOG_REQUEST_ID, request->entry.request_id }),
		          "it is long ago that the user was looked at, and the service may ask another agent: he is looked at again before anything is written");
	request->stale = true;
	request->pending = false;
	request_go_back(request);
	return request_await_delivery(request);
}

void request_delivered_again(struct request *request, uint8_t endpoint)
{
	request->endpoint = endpoint;
	request->undelivered = false;
	if (!request->awaits_delivery)
		return;
	request->awaits_delivery = false;
	request_stop_timer(request);
	request->stale = request->was_undelivered = true;
	request_go_back(request);
	request_resume(request, STATUS_OK);
}
