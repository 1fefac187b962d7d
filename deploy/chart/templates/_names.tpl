{{/*
What things are called, and how they are told apart.

A name leaves room for what is appended to it: of 63 characters, 10 for "-dashboard", and 11 for the hash that a
StatefulSet's revision adds to a label.
*/}}
{{- define "outlit-proxy.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "outlit-proxy.fullname" -}}
{{- $name := include "outlit-proxy.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* What a selector selects. Selectors cannot be changed: nothing that an upgrade changes may stand here. */}}
{{- define "outlit-proxy.identity" -}}
app.kubernetes.io/name: {{ include "outlit-proxy.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "outlit-proxy.selector" -}}
{{ include "outlit-proxy.identity" . }}
app.kubernetes.io/component: proxy
{{- end }}

{{/* The pod of `helm test`, as a network policy lets it in. */}}
{{- define "outlit-proxy.testPeer" -}}
podSelector:
  matchLabels:
    {{- include "outlit-proxy.identity" . | nindent 4 }}
    app.kubernetes.io/component: test
{{- end }}

{{/* By which name the test asks operations: of a statefulset its first pod, for what a pod took only that pod knows. */}}
{{- define "outlit-proxy.opsHost" -}}
{{- $name := include "outlit-proxy.fullname" . -}}
{{- ternary (printf "%s-0.%s-pods" $name $name) (printf "%s-ops" $name) (eq .Values.mode "statefulset") -}}
{{- end }}

{{/* Labels of every object; `component` says which of the release's it is. */}}
{{- define "outlit-proxy.labels" -}}
{{- $labels := include "outlit-proxy.identity" .root | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/component" .component -}}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (merge $labels (.labels | default dict) .root.Values.commonLabels) -}}
{{- end }}

{{/* The beginning of every object: `suffix` of its name, `component`, `labels` and `annotations` of its own. */}}
{{- define "outlit-proxy.metadata" -}}
metadata:
  name: {{ include "outlit-proxy.fullname" .root }}{{ .suffix }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "outlit-proxy.labels" . | nindent 4 }}
  {{- with .annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "outlit-proxy.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "outlit-proxy.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* The image, by digest where one is given: it names the same bytes for ever. */}}
{{- define "outlit-proxy.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with .Values.image.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* How many pods are asked for; with an autoscaler, the least. */}}
{{- define "outlit-proxy.replicas" -}}
{{- if .Values.autoscaling.enabled -}}
{{- .Values.autoscaling.minReplicas -}}
{{- else if .Values.replicaCount -}}
{{- .Values.replicaCount -}}
{{- else -}}
{{- ternary 1 2 (eq .Values.mode "statefulset") -}}
{{- end -}}
{{- end }}
