/* settings_judge: what a table of keys cannot say of writebackd.yaml: names, files and keys that contradict each other. Everything that the start would refuse is found here. */
#ifndef AGENT_SETTINGS_JUDGE_H
#define AGENT_SETTINGS_JUDGE_H

#include "agent/settings.h"

void settings_judge(const struct settings *settings, const struct file_reader *reader, struct config_errors *errors, const struct config_document *document);

#endif
