#include "agent/directory/kerberos.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include "agent/directory/credential.h"
#include "agent/directory/sasl.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/tls.h"

enum { END_WAIT_MS = 500, TICKET_SPARE_S = 5, RENEWAL_PAUSE_S = 60 };

/* Where it is: with the loop (IDLE), before the thread (QUEUED), on the thread (WORKING), before the loop (ANSWERED), with the thread to be cleared away (DONE). */
enum place { IDLE, QUEUED, WORKING, ANSWERED, DONE };
struct negotiation {
	TAILQ_ENTRY(negotiation) link;
	struct kerberos *kerberos;
	enum place place;          /* under the mutex */
	bool abandoned;            /* under the mutex: freed by the loop while WORKING */
	char host[256];
	uint8_t binding[TLS_BINDING_MAX];
	size_t binding_size;
	uint8_t *input;
	size_t input_size;
	struct negotiation_answer answer;
	struct ticket_cache *cache;        /* the thread's, as is: */
	struct sasl_exchange *exchange;
	negotiation_done done;
	void *arg;
};
TAILQ_HEAD(negotiations, negotiation);

struct kerberos {
	pthread_mutex_t mutex;
	pthread_cond_t wanted, ended;
	unsigned references;       /* the loop's and the thread's */
	bool closed, gone;         /* closed: by the loop. gone: the thread has ended */
	bool renew, discard;
	struct negotiations work, answers;
	unsigned queued;
	struct ticket_facts facts;
	char fault[256];           /* why the last try for a ticket failed; "" where it did not */
	char name[64], mechanism[16];
	int wake;                  /* eventfd: there are answers */
	struct event *event;       /* the loop's */
	struct tickets *tickets;   /* the thread's from here */
	enum status refused;
	char reason[256];
	int64_t refused_until_us;
	int64_t next_renewal_us;   /* not before */
};

/* The thread ------------------------------------------------------------------------------------------------------------------------- */

static void release(struct kerberos *kerberos)
{
	pthread_mutex_lock(&kerberos->mutex);
	bool last = --kerberos->references == 0;
	pthread_mutex_unlock(&kerberos->mutex);
	if (last) {
		tickets_free(kerberos->tickets);
		if (kerberos->wake >= 0) {
			close(kerberos->wake);
		}
		pthread_mutex_destroy(&kerberos->mutex);
		pthread_cond_destroy(&kerberos->wanted);
		pthread_cond_destroy(&kerberos->ended);
		free(kerberos);
	}
}

static void negotiation_clear(struct negotiation *negotiation)
{
	sasl_exchange_free(negotiation->exchange);
	ticket_cache_unref(negotiation->cache);
	free(negotiation->input);
	free(negotiation);
}

static void publish(struct kerberos *kerberos)
{
	pthread_mutex_lock(&kerberos->mutex);
	kerberos->facts = *tickets_facts(kerberos->tickets);
	pthread_mutex_unlock(&kerberos->mutex);
}

/* After a success too: where this host's clock is hours ahead, each new ticket is due as it comes. */
static int64_t renewal_pause_s(const struct ticket_facts *facts)
{
	int64_t half_s = (facts->until_s - facts->from_s) / 2 + 1;
	return facts->until_s == 0 || half_s > RENEWAL_PAUSE_S ? RENEWAL_PAUSE_S : half_s;
}

static enum status acquire(struct kerberos *kerberos, char *why, size_t capacity)
{
	int64_t now = clock_monotonic_us();
	if (now < kerberos->refused_until_us) {
		snprintf(why, capacity, "%s", kerberos->reason);
		return kerberos->refused;
	}
	enum status status = tickets_acquire(kerberos->tickets, why, capacity);
	publish(kerberos);
	pthread_mutex_lock(&kerberos->mutex);
	snprintf(kerberos->fault, sizeof kerberos->fault, "%s", status == STATUS_OK ? "" : why);
	pthread_mutex_unlock(&kerberos->mutex);
	now = clock_monotonic_us();
	const struct ticket_facts *facts = tickets_facts(kerberos->tickets);
	kerberos->next_renewal_us = now + renewal_pause_s(facts) * 1000000;
	if (status == STATUS_OK) {
		char until[CLOCK_TEXT_SIZE];
		clock_format(facts->until_s * 1000, until);
		log_event(LOG_INFO, "directory.ticket", LOG_FIELDS({ "directory", kerberos->name }), "Kerberos ticket of %s until %s", facts->principal, until);
	} else if (status == STATUS_DIRECTORY_CREDENTIAL) {
		kerberos->refused = status;
		kerberos->refused_until_us = now + (int64_t)CREDENTIAL_PAUSE_S * 1000000;
		snprintf(kerberos->reason, sizeof kerberos->reason, "%s", why);
	}
	return status;
}

/* One that lives for some seconds more; a fresh one where 80 % of its life are over, if that can be had. */
static enum status have_ticket(struct kerberos *kerberos, char *why, size_t capacity)
{
	const struct ticket_facts *facts = tickets_facts(kerberos->tickets);
	int64_t now_s = clock_now_ms() / 1000;
	if (facts->until_s > now_s + TICKET_SPARE_S && (now_s < ticket_renewal_s(facts) || clock_monotonic_us() < kerberos->next_renewal_us)) {
		return STATUS_OK;
	}
	enum status status = acquire(kerberos, why, capacity);
	return status != STATUS_OK && facts->until_s > now_s + TICKET_SPARE_S ? STATUS_OK : status;
}

static enum status begin(struct kerberos *kerberos, struct negotiation *negotiation)
{
	struct negotiation_answer *answer = &negotiation->answer;
	enum status status = have_ticket(kerberos, answer->why, sizeof answer->why);
	if (status == STATUS_OK) {
		status = tickets_for_server(kerberos->tickets, negotiation->host, answer->why, sizeof answer->why);
	}
	if (status != STATUS_OK) {
		publish(kerberos);
		return status;
	}
	negotiation->cache = tickets_cache_ref(kerberos->tickets);
	return sasl_exchange_new(kerberos->mechanism, negotiation->host, bytes_of(negotiation->binding, negotiation->binding_size), ticket_cache_credential(negotiation->cache),
	                         &negotiation->exchange, answer->why, sizeof answer->why);
}

static void work_on(struct kerberos *kerberos, struct negotiation *negotiation)
{
	struct negotiation_answer *answer = &negotiation->answer;
	*answer = (struct negotiation_answer){ .status = STATUS_OK };
	if (negotiation->exchange == NULL) {
		answer->status = begin(kerberos, negotiation);
	}
	if (answer->status == STATUS_OK) {
		answer->status = sasl_exchange_step(negotiation->exchange, bytes_of(negotiation->input, negotiation->input_size), &answer->token, &answer->complete, answer->why, sizeof answer->why);
	}
	free(negotiation->input);
	negotiation->input = NULL;
	negotiation->input_size = 0;
}

/* When the thread is to wake by itself, monotonic; INT64_MAX: when it is called. */
static int64_t renewal_us(const struct kerberos *kerberos)
{
	int64_t due_s = ticket_renewal_s(tickets_facts(kerberos->tickets)), now_us = clock_monotonic_us();
	if (due_s == 0) {
		return INT64_MAX;
	}
	int64_t due_us = now_us + (due_s * 1000 - clock_now_ms()) * 1000;
	int64_t earliest = kerberos->next_renewal_us > kerberos->refused_until_us ? kerberos->next_renewal_us : kerberos->refused_until_us;
	return due_us > earliest ? due_us : earliest;
}

static void renew_now(struct kerberos *kerberos)
{
	char why[256] = "";
	enum status status = acquire(kerberos, why, sizeof why);
	if (status != STATUS_OK) {
		log_event(status_level(status), "directory.ticket", LOG_FIELDS({ "directory", kerberos->name }, { LOG_CODE, status_code(status) }), "the Kerberos ticket could not be renewed: %s", why);
	}
}

/* With the mutex, which it lets go meanwhile. False: there was nothing to do. */
static bool do_one(struct kerberos *kerberos)
{
	struct negotiation *negotiation = TAILQ_FIRST(&kerberos->work);
	bool renew = kerberos->renew, discard = kerberos->discard;
	kerberos->renew = kerberos->discard = false;
	if (negotiation == NULL && !renew && !discard && renewal_us(kerberos) > clock_monotonic_us()) {
		return false;
	}
	if (negotiation != NULL) {
		TAILQ_REMOVE(&kerberos->work, negotiation, link);
		kerberos->queued -= negotiation->place == QUEUED;
		negotiation->place = negotiation->place == QUEUED ? WORKING : DONE;
	}
	bool closed = kerberos->closed;
	pthread_mutex_unlock(&kerberos->mutex);
	if (discard) {
		tickets_discard(kerberos->tickets);
		publish(kerberos);
	}
	if (renew) {
		kerberos->refused_until_us = 0;
	}
	if (renew && !closed && tickets_facts(kerberos->tickets)->until_s != 0) {
		renew_now(kerberos);
	}
	if (negotiation != NULL && negotiation->place == WORKING) {
		work_on(kerberos, negotiation);
	} else if (negotiation == NULL && !renew && !discard && !closed) {
		renew_now(kerberos);
	}
	pthread_mutex_lock(&kerberos->mutex);
	if (negotiation != NULL && negotiation->place == WORKING && !negotiation->abandoned) {
		negotiation->place = ANSWERED;
		TAILQ_INSERT_TAIL(&kerberos->answers, negotiation, link);
		if (!kerberos->closed) {
			eventfd_write(kerberos->wake, 1);
		}
	} else if (negotiation != NULL) {
		pthread_mutex_unlock(&kerberos->mutex);
		negotiation_clear(negotiation);
		pthread_mutex_lock(&kerberos->mutex);
	}
	return true;
}

static void *run(void *arg)
{
	struct kerberos *kerberos = arg;
	pthread_mutex_lock(&kerberos->mutex);
	for (;;) {
		if (do_one(kerberos)) {
			continue;
		}
		if (kerberos->closed) {
			break;
		}
		int64_t due = renewal_us(kerberos);
		struct timespec until = { due / 1000000, due % 1000000 * 1000 };
		if (due == INT64_MAX) {
			pthread_cond_wait(&kerberos->wanted, &kerberos->mutex);
		} else {
			pthread_cond_timedwait(&kerberos->wanted, &kerberos->mutex, &until);
		}
	}
	pthread_mutex_unlock(&kerberos->mutex);
	tickets_free(kerberos->tickets);
	kerberos->tickets = NULL;
	pthread_mutex_lock(&kerberos->mutex);
	kerberos->gone = true;
	pthread_cond_signal(&kerberos->ended);
	pthread_mutex_unlock(&kerberos->mutex);
	release(kerberos);
	return NULL;
}

static bool start_thread(struct kerberos *kerberos)
{
	pthread_t thread;
	pthread_attr_t detached;
	sigset_t all, before;
	sigfillset(&all);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	kerberos->references++;
	bool started = pthread_create(&thread, &detached, run, kerberos) == 0;
	kerberos->references -= !started;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&detached);
	return started;
}

/* The loop --------------------------------------------------------------------------------------------------------------------------- */

static void on_answers(evutil_socket_t fd, short what, void *arg)
{
	struct kerberos *kerberos = arg;
	eventfd_t count;
	eventfd_read(kerberos->wake, &count);
	for (;;) {
		pthread_mutex_lock(&kerberos->mutex);
		struct negotiation *negotiation = TAILQ_FIRST(&kerberos->answers);
		if (negotiation != NULL) {
			TAILQ_REMOVE(&kerberos->answers, negotiation, link);
			negotiation->place = IDLE;
		}
		pthread_mutex_unlock(&kerberos->mutex);
		if (negotiation == NULL) {
			return;
		}
		negotiation->done(&negotiation->answer, negotiation->arg);
	}
}

enum status kerberos_new(struct event_base *base, const struct directory_settings *settings, struct kerberos **ret_kerberos)
{
	struct kerberos *kerberos = calloc(1, sizeof *kerberos);
	pthread_condattr_t monotonic;
	if (kerberos == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	pthread_mutex_init(&kerberos->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&kerberos->wanted, &monotonic);
	pthread_cond_init(&kerberos->ended, &monotonic);
	pthread_condattr_destroy(&monotonic);
	TAILQ_INIT(&kerberos->work);
	TAILQ_INIT(&kerberos->answers);
	kerberos->references = 1;
	snprintf(kerberos->name, sizeof kerberos->name, "%s", settings->name);
	snprintf(kerberos->mechanism, sizeof kerberos->mechanism, "%s", settings->bind_mechanism == BIND_GSS_SPNEGO ? "GSS-SPNEGO" : "GSSAPI");
	kerberos->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	kerberos->event = kerberos->wake >= 0 ? event_new(base, kerberos->wake, EV_READ | EV_PERSIST, on_answers, kerberos) : NULL;
	if (kerberos->event == NULL || event_add(kerberos->event, NULL) != 0 || tickets_new(settings->bind_principal, settings->bind_keytab_file, &kerberos->tickets) != STATUS_OK ||
	    !start_thread(kerberos)) {
		if (kerberos->event != NULL) {
			event_free(kerberos->event);
		}
		release(kerberos);
		return STATUS_AGENT_INTERNAL;
	}
	*ret_kerberos = kerberos;
	return STATUS_OK;
}

void kerberos_free(struct kerberos *kerberos)
{
	struct timespec until;
	if (kerberos == NULL) {
		return;
	}
	event_free(kerberos->event);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += END_WAIT_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&kerberos->mutex);
	kerberos->closed = true;
	/* Here and not by the thread: libevent takes it out of its epoll only in the loop's next turn, when the number may be somebody else's. */
	close(kerberos->wake);
	kerberos->wake = -1;
	pthread_cond_signal(&kerberos->wanted);
	while (!kerberos->gone && pthread_cond_timedwait(&kerberos->ended, &kerberos->mutex, &until) == 0) {
	}
	pthread_mutex_unlock(&kerberos->mutex);
	release(kerberos);
}

void kerberos_renew(struct kerberos *kerberos, bool discard)
{
	pthread_mutex_lock(&kerberos->mutex);
	kerberos->discard |= discard;
	kerberos->renew |= !discard;
	pthread_cond_signal(&kerberos->wanted);
	pthread_mutex_unlock(&kerberos->mutex);
}

void kerberos_facts(struct kerberos *kerberos, struct ticket_facts *ret_facts)
{
	pthread_mutex_lock(&kerberos->mutex);
	*ret_facts = kerberos->facts;
	pthread_mutex_unlock(&kerberos->mutex);
}

void kerberos_fault(struct kerberos *kerberos, char *text, size_t capacity)
{
	pthread_mutex_lock(&kerberos->mutex);
	snprintf(text, capacity, "%s", kerberos->fault);
	pthread_mutex_unlock(&kerberos->mutex);
}

static enum status enqueue(struct negotiation *negotiation)
{
	struct kerberos *kerberos = negotiation->kerberos;
	pthread_mutex_lock(&kerberos->mutex);
	bool idle = negotiation->place == IDLE, room = kerberos->queued < KERBEROS_QUEUE_MAX;
	if (idle && room) {
		negotiation->place = QUEUED;
		kerberos->queued++;
		TAILQ_INSERT_TAIL(&kerberos->work, negotiation, link);
		pthread_cond_signal(&kerberos->wanted);
	}
	pthread_mutex_unlock(&kerberos->mutex);
	return !idle ? STATUS_AGENT_INTERNAL : room ? STATUS_OK : STATUS_AGENT_OVERLOADED;
}

enum status negotiation_new(struct kerberos *kerberos, const char *host, struct bytes binding, negotiation_done done, void *arg, struct negotiation **ret_negotiation)
{
	struct negotiation *negotiation = binding.size <= TLS_BINDING_MAX ? calloc(1, sizeof *negotiation) : NULL;
	if (negotiation == NULL) {
		return STATUS_AGENT_INTERNAL;
	}
	negotiation->kerberos = kerberos;
	negotiation->done = done;
	negotiation->arg = arg;
	snprintf(negotiation->host, sizeof negotiation->host, "%s", host);
	if (binding.size > 0) {
		memcpy(negotiation->binding, binding.data, binding.size);
	}
	negotiation->binding_size = binding.size;
	enum status status = enqueue(negotiation);
	if (status != STATUS_OK) {
		negotiation_clear(negotiation);
		return status;
	}
	*ret_negotiation = negotiation;
	return STATUS_OK;
}

enum status negotiation_step(struct negotiation *negotiation, struct bytes input)
{
	uint8_t *copy = malloc(input.size + 1);
	if (copy == NULL || negotiation_waits(negotiation)) {
		free(copy);
		return STATUS_AGENT_INTERNAL;
	}
	if (input.size > 0) {
		memcpy(copy, input.data, input.size);
	}
	negotiation->input = copy;
	negotiation->input_size = input.size;
	return enqueue(negotiation);
}

bool negotiation_waits(const struct negotiation *negotiation)
{
	pthread_mutex_lock(&negotiation->kerberos->mutex);
	bool waits = negotiation->place != IDLE;
	pthread_mutex_unlock(&negotiation->kerberos->mutex);
	return waits;
}

/* What libkrb5 and cyrus-sasl gave is freed where they run. */
void negotiation_free(struct negotiation *negotiation)
{
	if (negotiation == NULL) {
		return;
	}
	struct kerberos *kerberos = negotiation->kerberos;
	pthread_mutex_lock(&kerberos->mutex);
	if (negotiation->place == WORKING) {
		negotiation->abandoned = true;
	} else {
		if (negotiation->place == ANSWERED) {
			TAILQ_REMOVE(&kerberos->answers, negotiation, link);
		} else if (negotiation->place == QUEUED) {
			TAILQ_REMOVE(&kerberos->work, negotiation, link);
			kerberos->queued--;
		}
		negotiation->place = DONE;
		TAILQ_INSERT_TAIL(&kerberos->work, negotiation, link);
		pthread_cond_signal(&kerberos->wanted);
	}
	pthread_mutex_unlock(&kerberos->mutex);
}
