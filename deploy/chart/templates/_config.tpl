{{/*
The settings of the proxy: a TOML file made of .Values.config, and what must come by environment.
*/}}

{{/* The tables of the file: what was given, and this pod's part of the limit where each pod has a buffer of its own. */}}
{{- define "outlit-proxy.tables" -}}
{{- $tables := deepCopy .Values.config -}}
{{- $replicas := include "outlit-proxy.replicas" . | int -}}
{{- if and (eq .Values.mode "statefulset") (gt $replicas 1) -}}
{{- $delivery := get $tables "delivery" | default dict -}}
{{- /* Rounded down: three thirds must not be more than one. */ -}}
{{- $share := divf (mulf (divf (get $delivery "rate_share" | default 1 | float64) $replicas) 1000000.0 | floor) 1000000.0 -}}
{{- $_ := set $tables "delivery" (set $delivery "rate_share" $share) -}}
{{- end -}}
{{- toJson $tables -}}
{{- end }}

{{/* The file. JSON's texts, numbers, booleans and lists are TOML's too; only its objects are written in another way. */}}
{{- define "outlit-proxy.toml" -}}
# Written by the Helm chart from its value `config`. The environment of the pods, which overrides this file, has
# the listeners, the buffer's URL and the secrets.
{{- range $table, $settings := include "outlit-proxy.tables" . | fromJson }}

[{{ $table }}]
{{- range $name, $value := $settings }}
{{ $name }} = {{ include "outlit-proxy.tomlValue" $value }}
{{- end }}
{{- end }}
{{ end }}

{{- define "outlit-proxy.tomlValue" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $name, $value := . -}}
{{- $pairs = append $pairs (printf "%s = %s" $name (toJson $value)) -}}
{{- end -}}
{ {{- join ", " $pairs -}} }
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end }}

{{/* The Secret and key of a secret, as "name/key"; "" where there is none. The chart's own is <fullname>-secrets. */}}
{{- define "outlit-proxy.opsTokenSecret" -}}
{{- with .Values.opsToken -}}
{{- if .existingSecret -}}
{{- printf "%s/%s" .existingSecret .existingSecretKey -}}
{{- else if .value -}}
{{- printf "%s-secrets/ops-token" (include "outlit-proxy.fullname" $) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "outlit-proxy.gatewayApiKeySecret" -}}
{{- with .Values.gatewayApiKey -}}
{{- if .existingSecret -}}
{{- printf "%s/%s" .existingSecret .existingSecretKey -}}
{{- else if .value -}}
{{- printf "%s-secrets/gateway-api-key" (include "outlit-proxy.fullname" $) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "outlit-proxy.redisPasswordSecret" -}}
{{- with .Values.redis -}}
{{- if and .existingSecret (not .existingSecretUrlKey) -}}
{{- printf "%s/%s" .existingSecret .existingSecretPasswordKey -}}
{{- else if .password -}}
{{- printf "%s-secrets/redis-password" (include "outlit-proxy.fullname" $) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
What a container needs to run a command of the proxy with the settings of this release: variables, mounts, volumes.
What the image says of these by environment would override the file.
*/}}
{{- define "outlit-proxy.settingsEnv" -}}
- name: OUTLIT_PROXY_CONFIG
  value: /etc/outlit-proxy/outlit-proxy.toml
- name: OUTLIT_PROXY_BUFFER_URL
{{- if eq .Values.mode "statefulset" }}
  value: sqlite:////data/outlit-proxy.db
{{- else if .Values.redis.existingSecretUrlKey }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.redis.existingSecret }}
      key: {{ .Values.redis.existingSecretUrlKey }}
{{- else }}
  value: {{ .Values.redis.url | quote }}
{{- end }}
{{- if include "outlit-proxy.redisPasswordSecret" . }}
- name: OUTLIT_PROXY_BUFFER_PASSWORD_FILE
  value: /run/secrets/outlit-proxy/redis-password
{{- end }}
{{- if include "outlit-proxy.opsTokenSecret" . }}
- name: OUTLIT_PROXY_OPS_TOKEN_FILE
  value: /run/secrets/outlit-proxy/ops-token
{{- end }}
{{- end }}

{{- define "outlit-proxy.settingsMounts" -}}
- name: config
  mountPath: /etc/outlit-proxy
  readOnly: true
{{- if include "outlit-proxy.secretSources" . }}
- name: secrets
  mountPath: /run/secrets/outlit-proxy
  readOnly: true
{{- end }}
{{- end }}

{{- define "outlit-proxy.settingsVolumes" -}}
- name: config
  configMap:
    name: {{ include "outlit-proxy.fullname" . }}
{{- with include "outlit-proxy.secretSources" . }}
- name: secrets
  projected:
    {{- /* Read by fsGroup, and by nobody else. */}}
    defaultMode: 0440
    sources: {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "outlit-proxy.secretSources" -}}
{{- $paths := dict "ops-token" (include "outlit-proxy.opsTokenSecret" .) "redis-password" (include "outlit-proxy.redisPasswordSecret" .) -}}
{{- $sources := list -}}
{{- range $path, $secret := $paths -}}
{{- if $secret -}}
{{- $item := dict "key" (splitList "/" $secret | last) "path" $path -}}
{{- $sources = append $sources (dict "secret" (dict "name" (splitList "/" $secret | first) "items" (list $item))) -}}
{{- end -}}
{{- end -}}
{{- if $sources -}}
{{- toYaml $sources -}}
{{- end -}}
{{- end }}
