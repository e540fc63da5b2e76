/* SIGHUP: another configuration, where it is a good one. */
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "base/clock.h"

/* Once per change. `take_keys`: one a line; NULL: none. */
static void tell_restart(struct agent *agent, char *take_keys)
{
	size_t size = take_keys ? strlen(take_keys) : 0;
	while (size > 0 && take_keys[size - 1] == '\n')
		take_keys[--size] = 0;
	for (char *at = take_keys; at && *at; at++)
		*at = *at == '\n' ? ' ' : *at;
	if (take_keys && (!agent->restart_told || strcmp(take_keys, agent->restart_told) != 0))
		log_event(LOG_WARNING, "config.restart", NULL, "these keys have changed and need a restart: %s", take_keys);
	free(agent->restart_told);
	agent->restart_told = take_keys;
}

/* The service learns these in the greeting only. */
static void tell_service(struct agent *agent, const struct settings *before)
{
	if (settings_operations(before) == settings_operations(agent->settings) && before->in_flight == agent->settings->in_flight)
		return;
	for (unsigned i = 0; i < PACKET_ENDPOINTS; i++)
		if (agent->sessions[i])
			session_greet_again(agent->sessions[i], "another configuration");
}

static void take_settings(struct agent *agent, struct settings *take_fresh)
{
	struct settings *before = agent->settings;
	tell_restart(agent, config_not_reloadable(settings_keys, agent->first_settings, take_fresh));
	enum status status = realms_rescope(agent->realms, take_fresh);
	if (status != STATUS_OK) {
		const char *why = status == STATUS_LOCAL_CONFIG ? "other directories than at the start need a restart" : "out of memory";
		log_event(LOG_ERR, "config.refused", NULL, "%s; the old configuration stays", why);
		snprintf(agent->config_refused, sizeof agent->config_refused, "%.300s: %s", agent->config_file, why);
		utf8_mend(agent->config_refused);
		settings_clear(take_fresh);
		free(take_fresh);
		return;
	}
	agent->settings = take_fresh;
	agent->config_ms = clock_now_ms();
	agent->config_refused[0] = 0;
	struct limits_settings limits;
	settings_limits(take_fresh, &limits);
	limits_reconfigure(agent->limits, &limits);
	log_set_level(settings_log_level(take_fresh));
	tell_service(agent, before);
	if (before != agent->first_settings) {
		settings_clear(before);
		free(before);
	}
	log_event(LOG_NOTICE, "config.loaded", NULL, "%s is in force", agent->config_file);
}

void agent_reload(void *arg)
{
	struct agent *agent = arg;
	struct settings *fresh = calloc(1, sizeof *fresh);
	struct config_errors errors = { 0 };
	char text[CONFIG_ERROR_SIZE];
	if (!fresh) {
		log_event(LOG_ERR, "config.refused", NULL, "out of memory; the old configuration stays in force");
		return;
	}
	loop_notify_reloading(agent->loop);
	if (settings_load(agent->config_file, NULL, fresh, &errors, NULL) == STATUS_OK)
		take_settings(agent, fresh);
	else {
		for (size_t i = 0; i < errors.count; i++) {
			config_error_format(&errors.items[i], text, sizeof text);
			log_event(LOG_ERR, "config.error", NULL, "%s", text);
		}
		log_event(LOG_ERR, "config.refused", NULL, "the old configuration stays in force");
		if (errors.count)
			config_error_format(&errors.items[0], agent->config_refused, sizeof agent->config_refused);
		else
			snprintf(agent->config_refused, sizeof agent->config_refused, "%.200s: cannot be read", agent->config_file);
		utf8_mend(agent->config_refused);
		free(fresh);
	}
	config_errors_clear(&errors);
	/* Also what is behind the configuration may have been mended: a password file, an account, a group. */
	for (size_t i = 0; i < realms_count(agent->realms); i++)
		directory_retry(realm_directory(realms_at(agent->realms, i)));
	agent_describe(agent, text, sizeof text);
	loop_notify_ready(agent->loop, text);
}
