/* kerberos.c alone, with tickets that live for seconds and a SASL that says what it is told: who is called when, and who frees what. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/directory/kerberos.h"
#include "agent/directory/sasl.h"
#include "base/clock.h"

/* What stands behind the thread ------------------------------------------------------------------------------------------------------ */

struct tickets {
	struct ticket_facts facts;
};
struct ticket_cache {
	unsigned references;
};
struct sasl_exchange {
	unsigned steps;
};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	unsigned acquired, discarded, exchanges;
	_Atomic unsigned caches;
	int life_s, behind_s;      /* the KDC's clock, to ours */
	enum status answer;
	unsigned pause_ms;
} stage;

static unsigned acquired(void)
{
	pthread_mutex_lock(&lock);
	unsigned count = stage.acquired;
	pthread_mutex_unlock(&lock);
	return count;
}

static unsigned exchanges(void)
{
	pthread_mutex_lock(&lock);
	unsigned count = stage.exchanges;
	pthread_mutex_unlock(&lock);
	return count;
}

static void answer_from_now(enum status answer)
{
	pthread_mutex_lock(&lock);
	stage.answer = answer;
	pthread_mutex_unlock(&lock);
}

static void be_slow(unsigned pause_ms)
{
	pthread_mutex_lock(&lock);
	stage.pause_ms = pause_ms;
	pthread_mutex_unlock(&lock);
}

int64_t ticket_renewal_s(const struct ticket_facts *facts) { return facts->until_s == 0 ? 0 : facts->from_s + (facts->until_s - facts->from_s) * 4 / 5; }
const struct ticket_facts *tickets_facts(const struct tickets *tickets) { return &tickets->facts; }
const void *ticket_cache_credential(const struct ticket_cache *cache) { return cache; }

enum status tickets_new(const char *principal, const char *keytab, struct tickets **ret_tickets)
{
	*ret_tickets = calloc(1, sizeof **ret_tickets);
	return STATUS_OK;
}

void tickets_free(struct tickets *tickets)
{
	free(tickets);
}

enum status tickets_acquire(struct tickets *tickets, char *why, size_t capacity)
{
	pthread_mutex_lock(&lock);
	stage.acquired++;
	enum status answer = stage.answer;
	if (answer == STATUS_OK) {
		tickets->facts.from_s = clock_now_ms() / 1000 - stage.behind_s;
		tickets->facts.until_s = tickets->facts.from_s + stage.life_s;
	} else {
		snprintf(why, capacity, "the KDC said no");
	}
	pthread_mutex_unlock(&lock);
	return answer;
}

enum status tickets_for_server(struct tickets *tickets, const char *host, char *why, size_t capacity)
{
	return STATUS_OK;
}

void tickets_discard(struct tickets *tickets)
{
	pthread_mutex_lock(&lock);
	stage.discarded++;
	pthread_mutex_unlock(&lock);
	tickets->facts.from_s = tickets->facts.until_s = 0;
}

struct ticket_cache *tickets_cache_ref(struct tickets *tickets)
{
	stage.caches++;
	return calloc(1, sizeof(struct ticket_cache));
}

void ticket_cache_unref(struct ticket_cache *cache)
{
	stage.caches -= cache != NULL;
	free(cache);
}

enum status sasl_exchange_new(const char *mechanism, const char *host, struct bytes binding, const void *credential, struct sasl_exchange **ret_exchange, char *why, size_t capacity)
{
	assert_string_equal(mechanism, "GSS-SPNEGO");
	assert_string_equal(host, "dc1.test");
	assert_true(bytes_equal(binding, bytes_of("hash", 4)));
	*ret_exchange = calloc(1, sizeof **ret_exchange);
	pthread_mutex_lock(&lock);
	stage.exchanges++;
	pthread_mutex_unlock(&lock);
	return STATUS_OK;
}

/* Echoes what the server said, and has enough at the third step. */
enum status sasl_exchange_step(struct sasl_exchange *exchange, struct bytes input, struct bytes *ret_token, bool *ret_complete, char *why, size_t capacity)
{
	static char echo[64];
	pthread_mutex_lock(&lock);
	struct timespec pause = { 0, stage.pause_ms * 1000000L };
	pthread_mutex_unlock(&lock);
	nanosleep(&pause, NULL);
	snprintf(echo, sizeof echo, "%.*s/%u", (int)input.size, input.size > 0 ? (const char *)input.data : "", exchange->steps);
	*ret_token = bytes_of_string(echo);
	*ret_complete = ++exchange->steps == 3;
	return STATUS_OK;
}

void sasl_exchange_free(struct sasl_exchange *exchange)
{
	pthread_mutex_lock(&lock);
	stage.exchanges -= exchange != NULL;
	pthread_mutex_unlock(&lock);
	free(exchange);
}

/* The loop's side -------------------------------------------------------------------------------------------------------------------- */

static struct event_base *base;
static struct kerberos *kerberos;
static struct { unsigned fired; enum status status; bool complete; char token[64]; } end;
static struct negotiation *to_free;

static int set_up(void **state)
{
	struct directory_settings settings = { .name = "test", .bind_mechanism = BIND_GSS_SPNEGO, .bind_keytab_file = "/nonexistent" };
	memset(&stage, 0, sizeof stage);
	memset(&end, 0, sizeof end);
	stage.life_s = 36000;
	base = event_base_new();
	return kerberos_new(base, &settings, &kerberos) != STATUS_OK;
}

static int tear_down(void **state)
{
	kerberos_free(kerberos);
	event_base_free(base);
	assert_int_equal(exchanges(), 0);
	assert_int_equal(stage.caches, 0);
	return 0;
}

static void on_done(const struct negotiation_answer *answer, void *arg)
{
	end.fired++;
	end.status = answer->status;
	end.complete = answer->complete;
	snprintf(end.token, sizeof end.token, "%.*s", (int)answer->token.size, answer->token.size > 0 ? (const char *)answer->token.data : "");
	negotiation_free(to_free);
	to_free = NULL;
}

static void turn_until(unsigned fired, unsigned tickets, int64_t ms)
{
	int64_t begin = clock_monotonic_us();
	struct timeval tick = { 0, 5000 };
	while ((end.fired < fired || acquired() < tickets) && clock_monotonic_us() - begin < ms * 1000) {
		event_base_loopexit(base, &tick);
		event_base_dispatch(base);
	}
}

static struct negotiation *begin(void)
{
	struct negotiation *negotiation = NULL;
	assert_int_equal(negotiation_new(kerberos, "dc1.test", bytes_of("hash", 4), on_done, NULL, &negotiation), STATUS_OK);
	return negotiation;
}

static void steps_go_there_and_back(void **state)
{
	struct negotiation *negotiation = begin();
	assert_int_equal(negotiation_step(negotiation, bytes_of("early", 5)), STATUS_AGENT_INTERNAL);
	turn_until(1, 0, 2000);
	assert_string_equal(end.token, "/0");
	assert_false(end.complete);
	assert_int_equal(negotiation_step(negotiation, bytes_of("one", 3)), STATUS_OK);
	turn_until(2, 0, 2000);
	assert_string_equal(end.token, "one/1");
	assert_int_equal(negotiation_step(negotiation, bytes_of(NULL, 0)), STATUS_OK);
	turn_until(3, 0, 2000);
	assert_string_equal(end.token, "/2");
	assert_true(end.complete);
	assert_int_equal(acquired(), 1);
	negotiation_free(negotiation);
}

/* Before the thread has it, while it has it, after it had it, and from within the answer. */
static void freed_at_any_time(void **state)
{
	struct timespec moment = { 0, 30000000 };
	be_slow(150);
	struct negotiation *one = begin(), *two = begin();
	nanosleep(&moment, NULL);
	negotiation_free(two);
	negotiation_free(one);
	turn_until(1, 0, 400);
	assert_int_equal(end.fired, 0);
	be_slow(0);
	one = begin();
	nanosleep(&moment, NULL); /* answered, and the loop has not looked */
	negotiation_free(one);
	turn_until(1, 0, 50);
	assert_int_equal(end.fired, 0);
	one = begin();
	to_free = two = begin();
	turn_until(2, 0, 2000);
	assert_int_equal(end.fired, to_free == NULL ? 1 : 2);
	negotiation_free(one);
}

/* The thread may still be busy: what the loop has watched is closed by the loop's own thread all the same, and nothing is written to that number any more. */
static void the_loops_thread_closes_what_the_loop_watched(void **state)
{
	struct timespec moment = { 0, 30000000 };
	int next = dup(0), after;
	close(next);
	be_slow(900);
	struct negotiation *negotiation = begin();
	for (unsigned i = 0; i < 100 && exchanges() == 0; i++)
		nanosleep(&moment, NULL);
	negotiation_free(negotiation);
	kerberos_free(kerberos);
	kerberos = NULL;
	after = dup(0);
	close(after);
	assert_true(exchanges() == 1 && after < next);
	for (unsigned i = 0; i < 100 && exchanges() > 0; i++)
		nanosleep(&moment, NULL);
}

/* Five seconds of life: at 80 % a new one comes by itself. */
static void renewed_in_the_background(void **state)
{
	stage.life_s = 5;
	struct negotiation *negotiation = begin();
	turn_until(1, 1, 2000);
	int64_t first = clock_monotonic_us();
	turn_until(0, 2, 6000);
	assert_int_equal(acquired(), 2);
	assert_true(clock_monotonic_us() - first > 2500000 && clock_monotonic_us() - first < 5000000);
	negotiation_free(negotiation);
}

/* To a clock that is nine hours ahead each new ticket of ten is at 90 % of its life: one is enough, for the thread and for who binds. */
static void a_clock_ahead_does_not_ask_for_tickets_without_end(void **state)
{
	stage.behind_s = 9 * 3600;
	for (unsigned i = 1; i <= 3; i++) {
		struct negotiation *negotiation = begin();
		turn_until(i, 0, 2000);
		assert_int_equal(end.fired, i);
		assert_int_equal(end.status, STATUS_OK);
		negotiation_free(negotiation);
	}
	turn_until(0, 2, 200);
	assert_int_equal(acquired(), 1);
	kerberos_renew(kerberos, false);
	turn_until(0, 2, 2000);
	assert_int_equal(acquired(), 2);
}

/* The old one is good until it ends; then there is none. */
static void a_failed_renewal_keeps_the_old_ticket(void **state)
{
	struct ticket_facts facts;
	struct negotiation *negotiation = begin();
	turn_until(1, 1, 2000);
	answer_from_now(STATUS_DIRECTORY_UNAVAILABLE);
	kerberos_renew(kerberos, false);
	turn_until(0, 2, 2000);
	assert_int_equal(acquired(), 2);
	kerberos_facts(kerberos, &facts);
	assert_true(facts.until_s > clock_now_ms() / 1000 + 30000);
	negotiation_free(negotiation);
	negotiation = begin();
	turn_until(2, 0, 2000);
	assert_int_equal(end.status, STATUS_OK);
	negotiation_free(negotiation);
}

static void a_refused_ticket_is_thrown_away(void **state)
{
	struct negotiation *negotiation = begin();
	turn_until(1, 1, 2000);
	negotiation_free(negotiation);
	kerberos_renew(kerberos, true);
	negotiation = begin();
	turn_until(2, 2, 2000);
	assert_int_equal(stage.discarded, 1);
	assert_int_equal(acquired(), 2);
	negotiation_free(negotiation);
}

static void a_refused_key_is_not_shown_again(void **state)
{
	answer_from_now(STATUS_DIRECTORY_CREDENTIAL);
	for (unsigned i = 1; i <= 3; i++) {
		struct negotiation *negotiation = begin();
		turn_until(i, 0, 2000);
		assert_int_equal(end.status, STATUS_DIRECTORY_CREDENTIAL);
		negotiation_free(negotiation);
	}
	assert_int_equal(acquired(), 1);
	kerberos_renew(kerberos, false);
	struct negotiation *negotiation = begin();
	turn_until(4, 0, 2000);
	assert_int_equal(acquired(), 2);
	negotiation_free(negotiation);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(steps_go_there_and_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(freed_at_any_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(the_loops_thread_closes_what_the_loop_watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(renewed_in_the_background, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_clock_ahead_does_not_ask_for_tickets_without_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_failed_renewal_keeps_the_old_ticket, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_refused_ticket_is_thrown_away, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_refused_key_is_not_shown_again, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
